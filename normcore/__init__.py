"""normcore: normalization, activation and pooling layers as Numba kernels, and the networks built from them.

Everything public is imported at its first use, so that `import normcore` alone loads neither NumPy nor Numba.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normcore import interop
    from normcore.bound_layer import Layer, layer
    from normcore.component import Component
    from normcore.data.source import DataSource
    from normcore.elementwise_ops import elementwise
    from normcore.errors import DataError, NormcoreError, ParameterError, PluginError, ShapeError
    from normcore.hookspecs import hookimpl
    from normcore.initializers import Initializer
    from normcore.network import Network
    from normcore.op import Array, Op, Plan, Tensor
    from normcore.sequences import Sequences
    from normcore.templates.normalization import normalization
    from normcore.templates.pooling import pooling
    from normcore.training.loop import Trainer
    from normcore.training.losses import Loss
    from normcore.training.optimizers import Optimizer
    from normcore.training.schedules import Schedule

__version__ = "0.1.0"

_HOMES = {
    "Array": "op",
    "Component": "component",
    "DataError": "errors",
    "DataSource": "data.source",
    "Initializer": "initializers",
    "Layer": "bound_layer",
    "Loss": "training.losses",
    "Network": "network",
    "NormcoreError": "errors",
    "Op": "op",
    "Optimizer": "training.optimizers",
    "ParameterError": "errors",
    "Plan": "op",
    "PluginError": "errors",
    "Schedule": "training.schedules",
    "Sequences": "sequences",
    "ShapeError": "errors",
    "Tensor": "op",
    "Trainer": "training.loop",
    "elementwise": "elementwise_ops",
    "hookimpl": "hookspecs",
    "interop": "interop",
    "layer": "bound_layer",
    "normalization": "templates.normalization",
    "pooling": "templates.pooling",
}

__all__ = [
    "Array",
    "Component",
    "DataError",
    "DataSource",
    "Initializer",
    "Layer",
    "Loss",
    "Network",
    "NormcoreError",
    "Op",
    "Optimizer",
    "ParameterError",
    "Plan",
    "PluginError",
    "Schedule",
    "Sequences",
    "ShapeError",
    "Tensor",
    "Trainer",
    "elementwise",
    "hookimpl",
    "interop",
    "layer",
    "normalization",
    "ops",
    "pooling",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'normcore' has no attribute {name!r}")
    home = importlib.import_module(f"normcore.{_HOMES[name]}")
    value = home if _HOMES[name] == name else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def ops() -> list[Any]:
    """The registered ops, by name; each has name, aliases, doc, parameters, source and the plugin it came from."""
    from normcore.registry import default

    return default().all("op")
