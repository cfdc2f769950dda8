"""The generated source of an op's kernels: what `normcore ops show NAME --kernel cpu` prints.

The op runs forward and backward on its first sample with launches diverted, so that what is listed is what an op
launches: the constants of that sample's parameters are in it. Nothing is compiled, and no GPU is needed.
"""

from dataclasses import dataclass

import numpy as np

from normcore.bound_layer import Layer
from normcore.devices.cpu import Cpu
from normcore.kernels.kernel import recording
from normcore.op import Op
from normcore.testing.derive import inputs_of, samples_of
from normcore.testing.ptx import Recorder
from normcore.testing.running import parallel_from


@dataclass(frozen=True)
class KernelText:
    """direction: "forward" or "backward"; kernel: the entry function's name; text: the module's source."""

    direction: str
    kernel: str
    text: str


def kernel_texts(cls: type[Op], target: str, dtype: str = "float32") -> list[KernelText]:
    """The modules of all entry kernels of an op on "cpu" or "cuda", in the order of their first launch."""
    sample = samples_of(cls)[0]
    op = cls.make(**sample.params)
    if op.is_view or (target == "cuda" and not cls.has_cuda()):
        return []
    with parallel_from(0), np.errstate(all="ignore"):
        layer = Layer(op, list(sample.input_shapes), Cpu() if target == "cpu" else Recorder(), dtype)
        inputs = inputs_of(op, sample, sample.input_shapes, 0)
        inputs = tuple(a.astype(dtype) if a.dtype.kind == "f" else a for a in inputs)
        found: dict[str, KernelText] = {}
        for direction in ("forward", "backward") if op.differentiable else ("forward",):
            with recording() as launched:
                if direction == "forward":
                    y = layer.forward(*inputs, training=sample.training)
                else:
                    layer.backward(np.zeros((y[0] if isinstance(y, tuple) else y).shape, dtype))
            for kernel, variant in launched:
                text = kernel.text(variant)
                found.setdefault(text, KernelText(direction, kernel.__name__.strip("_"), text))
    return list(found.values())
