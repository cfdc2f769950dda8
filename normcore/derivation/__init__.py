"""Derivatives of scalar functions from their source: expressions.py (the terms and their text), rules.py (the calculus
of each operation and function), ranges.py (signs and bounds), derive.py (from a function's statements to terms)."""

from normcore.derivation.derive import Derived

__all__ = ["Derived"]
