"""One op bound to shapes, a dtype, a memory format and a device: how Layer and Network run an op.

A Binding holds the op's Tensors and knows which array each name needs; whoever owns the memory (Layer, or a
network's program) attaches the arrays. Nothing here allocates.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from normcore import random, storage
from normcore.devices import by_copying
from normcore.devices.device import Device
from normcore.errors import PluginError
from normcore.kernels import variant
from normcore.layout import physical_shape
from normcore.op import Array, Op, Plan, Shape, Tensor, Tensors

# A parallel region costs a microsecond or more; below this many elements (or their worth of arithmetic) one
# thread is faster. The choice depends on shapes alone, so results do not depend on the number of threads.
PARALLEL_ELEMENTS = 32768
FLOPS_PER_ELEMENT = 32


def input_names(op: Op, count: int) -> tuple[str, ...]:
    """The names of an op's inputs in its Tensors; for a variadic op the one name of the tuple."""
    names = op.inputs
    return tuple(n.lstrip("*") for n in names) if names and names[0].startswith("*") else names


class Binding:
    """An op with its Tensors. `forward(training)` and `backward()` run its kernels on the attached arrays.

    keeps_z: forward also keeps the value before the fused chain, for backward, as the saved array "z" of `plan`.
    """

    def __init__(
        self,
        op: Op,
        inputs: tuple[Tensor, ...],
        *,
        path: str,
        dtype: str,
        format: str,
        device: Device,
        seed: int,
        chain: Any = None,
        constants: tuple[float, ...] = (),
    ):
        self.op, self.inputs, self.path, self.dtype, self.format, self.device = (
            op,
            inputs,
            path,
            dtype,
            format,
            device,
        )
        self.plan: Plan = op.plan(*inputs)
        self.outputs: dict[str, Tensor] = self.plan.outputs(dtype)
        self.keeps_z = op.epilogue == "output" and chain is not None and chain.knows == "input"
        if self.keeps_z:
            self.plan = dataclasses.replace(self.plan, saved={**self.plan.saved, "z": self._z()})
        self.variadic = bool(op.inputs) and op.inputs[0].startswith("*")
        self.input_names = input_names(op, len(inputs))
        if device.name == "cpu" and not op.is_view and not hasattr(op, "forward_cpu"):
            raise PluginError(
                f"{path}: {op.name} has no kernels for the CPU (forward_cpu), only for CUDA; run it with --device cuda, "
                "or give the op a forward_cpu"
            )
        # The op's own methods; a view has none, and an op without a gradient has no backward.
        self.run_forward: Callable[[Tensors], None] = getattr(op, f"forward_{device.name}", _nothing)
        self.run_backward: Callable[[Tensors], None] = getattr(op, f"backward_{device.name}", _nothing)
        if device.name == "cuda" and by_copying.needed(op):
            stand_in = by_copying.ByCopying(op, self.plan, self.input_names, tuple(self.outputs), device)
            self.run_forward = stand_in.forward
            self.run_backward = stand_in.backward if hasattr(op, "backward_cpu") else _nothing
        t = self.t = Tensors()
        arithmetic = storage.computed(dtype)
        real = np.dtype(arithmetic).type
        t.e = tuple(real(c) for c in constants) or (real(0),)
        elements = sum(x.size for x in inputs) + sum(y.size for y in self.outputs.values())
        work = max(elements, self.plan.flops // FLOPS_PER_ELEMENT)
        stored = "" if arithmetic == dtype else dtype
        t.variant = variant(arithmetic, work >= PARALLEL_ELEMENTS, chain, stored)
        t.dtype, t.format, t.device = dtype, format, device
        t.batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
        t.key = np.uint64(random.key_of(seed, path))  # typed: kernels must not see a signed number
        t.call = 0
        t.training, t.calibrating = False, 0
        t.path = path
        if op.epilogue == "output":
            t.z = None  # until it is attached, where it is kept

    def _z(self) -> Array:
        """The value before the fused chain: as the op's one output."""
        (y,) = self.outputs.values()
        return Array(self.physical(y), y.dtype)

    def attach(self, name: str, array: Any) -> None:
        """Put an array (or None, for a gradient that is not wanted) under a name."""
        setattr(self.t, name, array)

    def attach_inputs(self, arrays: tuple[Any, ...], prefix: str = "") -> None:
        """Attach the inputs, or with prefix "d" their gradients, under the op's own names."""
        if self.variadic:
            setattr(self.t, prefix + self.input_names[0], tuple(arrays))
        else:
            for name, array in zip(self.input_names, arrays, strict=True):
                setattr(self.t, prefix + name, array)

    def arrays(self) -> dict[str, tuple[Shape, str]]:
        """Shape and dtype of every array a training step needs besides inputs and their gradients, by name."""
        wanted: dict[str, tuple[Shape, str]] = {}
        own = storage.computed(self.dtype)
        for group in (self.plan.saved, self.plan.workspace):
            wanted.update({k: (a.shape, a.dtype or own) for k, a in group.items()})
        return wanted

    def physical(self, tensor: Tensor) -> Shape:
        return physical_shape(tensor.shape, self.format)

    @property
    def differentiable(self) -> bool:
        return self.op.differentiable and (self.run_backward is not _nothing or self.op.is_view)

    def forward(self, training: bool) -> None:
        self.t.training = training
        self.run_forward(self.t)

    def backward(self) -> None:
        self.run_backward(self.t)


def _nothing(t: Tensors) -> None:
    """Stands for a kernel that an op does not have."""
