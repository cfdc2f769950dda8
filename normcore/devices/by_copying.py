"""Ops without CUDA kernels on the GPU: their arrays are copied to the host, the CPU kernels run, and back.

The device's arrays stay the truth: every call fetches what the kernels read and stores what they wrote, so it does
not matter who else writes to them in between, or where the planner has put them. It costs two copies over the bus
and two waits a call, which is why the user is warned, once for each op.
"""

import warnings
from typing import Any

import numpy as np

from normcore.devices import cpu
from normcore.devices.device import Device
from normcore.op import Op, Plan, Tensors

_warned: set[str] = set()


def needed(op: Op) -> bool:
    """Whether the op has CPU kernels that no CUDA kernels match. Forward and backward go together: what the one
    saves only the other can read."""
    if op.is_view or not hasattr(op, "forward_cpu"):
        return False
    return not type(op).has_cuda() or (hasattr(op, "backward_cpu") and not hasattr(op, "backward_cuda"))


class ByCopying:
    """An op's CPU kernels for arrays on a device; `forward` and `backward` stand in for its CUDA methods."""

    def __init__(self, op: Op, plan: Plan, inputs: tuple[str, ...], outputs: tuple[str, ...], device: Device):
        self.op, self.device = op, device
        gradients = {"d" + name for name in (*inputs, *plan.parameters)}
        scratch = set(plan.workspace)
        saved = {*outputs, *plan.saved}
        reads = {*op.backward_needs, *(("y",) if op.epilogue == "output" else ())}  # of a fused chain
        unread = {
            name for name, names in (("x", inputs), ("y", outputs)) if name not in reads for name in names
        }
        # For each direction: what to make room for without its values, and what to bring back.
        self._forward = (saved | scratch | gradients, saved | set(plan.state))
        self._backward = (scratch | gradients | unread, gradients)
        if op.name not in _warned:
            _warned.add(op.name)
            missing = "backward_cuda" if type(op).has_cuda() else "CUDA kernels"
            warnings.warn(
                f"op {op.name!r} has no {missing}: it runs on the CPU, its arrays copied there and back in every "
                "step; write forward_cuda and backward_cuda to keep it on the GPU",
                stacklevel=4,
            )

    def forward(self, t: Tensors) -> None:
        self._run(self.op.forward_cpu, t, *self._forward)  # type: ignore[attr-defined]

    def backward(self, t: Tensors) -> None:
        self._run(self.op.backward_cpu, t, *self._backward)  # type: ignore[attr-defined]

    def _run(self, kernels: Any, t: Tensors, empty: set[str], written: set[str]) -> None:
        host = Tensors()
        for name, value in vars(t).items():
            setattr(host, name, self._fetched(value, name not in empty))
        host.device = cpu.device()
        kernels(host)
        for name in written & vars(t).keys():
            self._store(getattr(host, name), getattr(t, name))

    def _fetched(self, value: Any, with_values: bool) -> Any:
        if isinstance(value, tuple):
            return tuple(self._fetched(v, with_values) for v in value)
        if not getattr(value, "ndim", 0):
            return value  # a number, a name, or None
        dtype = np.dtype(str(value.dtype))
        place: np.ndarray = cpu.device().empty(value.nbytes).view(dtype).reshape(value.shape)
        if with_values:
            place[...] = self.device.to_host(value)
        return place

    def _store(self, value: Any, target: Any) -> None:
        if isinstance(target, tuple):
            for one, place in zip(value, target, strict=True):
                self._store(one, place)
        elif getattr(target, "ndim", 0) and target.size:
            target[...] = self.device.array(value, str(target.dtype))
