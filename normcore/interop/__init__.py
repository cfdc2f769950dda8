"""normcore inside other libraries. Each submodule is imported at its first use, with the library that it is for."""

import importlib
from typing import Any

_MODULES = ("torch", "torch_network")
__all__ = ["torch", "torch_network"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'normcore.interop' has no attribute {name!r}")
    return importlib.import_module(f"normcore.interop.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
