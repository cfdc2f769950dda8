"""Layers every network is made of, one file per op."""

import importlib
import importlib.util

from normcore import hookimpl

OPS = {
    "add": "Add",
    "concat": "Concat",
    "conv": "Conv",
    "dense": "Dense",
    "dropout": "Dropout",
    "flatten": "Flatten",
    "multiply": "Multiply",
    "permute": "Permute",
    "reshape": "Reshape",
    "scale": "Scale",
}


@hookimpl
def normcore_ops():
    found = []
    for module, name in OPS.items():
        if importlib.util.find_spec(f"normcore_basic.{module}"):
            found.append(getattr(importlib.import_module(f"normcore_basic.{module}"), name))
    return found
