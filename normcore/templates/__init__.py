"""Template ops: whole layers from a few scalar functions, with kernels and gradients written by the engine.

normalization.py   statistics over a choice of axes, and what one element becomes of them
pooling.py         sums over windows, and what a window's sums become
"""

from normcore.templates.normalization import normalization
from normcore.templates.pooling import pooling

__all__ = ["normalization", "pooling"]
