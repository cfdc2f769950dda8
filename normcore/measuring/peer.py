"""The same op in PyTorch, as calls to time: eager in both memory formats, and compiled where that works.

Tensors live on the op's device, parameters and state are copies of ours. Forward records what backward needs, as in
training. Backward is one call of torch.autograd.grad on a kept graph.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normcore.errors import DeviceError
from normcore.measuring.cases import BenchCase

FORMATS = ("channels_first", "channels_last")
# glibc reads these when the process starts. Untuned, every large output of PyTorch is memory fresh from the kernel,
# page-faulted anew: that makes it look several times slower than its own kernels are.
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "GOMP_SPINCOUNT": "10000",
}
INSTALL = 'pip install "normcore[peers]"'


def load() -> Any:
    """The module torch, with as many threads as our kernels. Raises DeviceError when it is not installed."""
    try:
        import torch
    except ImportError as fault:
        raise DeviceError(f"--against torch: PyTorch cannot be imported ({fault}): {INSTALL}") from None
    import numba

    torch.set_num_threads(numba.get_num_threads())
    return torch


def tuned() -> bool:
    """Whether this process's allocator keeps memory; always where it is not glibc's."""
    return not sys.platform.startswith("linux") or all(key in os.environ for key in TUNED)


class Peer:
    """One op's calls in PyTorch."""

    def __init__(self, torch: Any, case: BenchCase, parameters: dict[str, Any], state: dict[str, Any]):
        self.torch, self.case = torch, case
        self.device = "cuda" if case.device == "cuda" else "cpu"
        self.parameters = {k: self._tensor(v, True) for k, v in parameters.items()}
        self.state = {k: self._tensor(v, False) for k, v in state.items()}

    def _tensor(self, array: np.ndarray, wanted: bool) -> Any:
        tensor = self.torch.tensor(array, device=self.device)
        return tensor.requires_grad_() if wanted and array.dtype.kind == "f" else tensor

    def formats(self) -> tuple[str, ...]:
        """Both, where memory has room for a difference."""
        images = any(len(s) in (4, 5) and s[1] > 1 for s in self.case.shapes)
        return FORMATS if images else FORMATS[:1]

    def _formatted(self, array: np.ndarray, format: str, wanted: bool) -> Any:
        tensor = self.torch.tensor(array, device=self.device)
        if format == "channels_last" and tensor.ndim in (4, 5):
            order = self.torch.channels_last if tensor.ndim == 4 else self.torch.channels_last_3d
            tensor = tensor.contiguous(memory_format=order)
        return tensor.requires_grad_() if wanted and array.dtype.kind == "f" else tensor

    def function(self) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            given = {**self.parameters, **self.state}
            return self.case.op.in_torch(self.torch, *inputs, training=self.case.training, **given)

        return run

    def calls(
        self, inputs: Sequence[tuple[np.ndarray, ...]], direction: str, format: str, function: Any = None
    ) -> list[Callable[[], object]]:
        """A call for each set of inputs. Raises whatever the op does in PyTorch."""
        wanted = self.case.op.differentiable
        run = function or self.function()
        made: list[Callable[[], object]] = []
        values = None  # of the first output's gradient, random once: drawing them takes longer than copying
        for arrays in inputs:
            tensors = [self._formatted(a, format, wanted) for a in arrays]
            if direction == "forward":
                made.append(self._forward(run, tensors))
                continue
            y = run(*tensors)
            y = y[0] if isinstance(y, tuple) else y
            values = self.torch.rand_like(y) if values is None else values
            made.append(self._backward(y, tensors, values.clone()))
        return made

    def _forward(self, run: Any, tensors: list[Any]) -> Callable[[], object]:
        return lambda: run(*tensors)

    def _backward(self, y: Any, tensors: list[Any], dy: Any) -> Callable[[], object]:
        sources = [t for t in (*tensors, *self.parameters.values()) if t.requires_grad]
        gradient = self.torch.autograd.grad
        return lambda: gradient(y, sources, dy, retain_graph=True, allow_unused=True)

    def compiled(self) -> Any:
        """The function through torch.compile; raises what torch raises when it is first called."""
        self.torch._dynamo.reset()
        return self.torch.compile(self.function(), dynamic=False)

    def clock(self, call: Callable[[], object], repeats: int) -> float:
        """Seconds per call on the GPU, by PyTorch's own events on the stream that its kernels run on."""
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / repeats


def try_compiled(peer: Peer, inputs: Any, direction: str, format: str) -> tuple[Any, str]:
    """(calls, "") through torch.compile, or (None, why it does not work here)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls = peer.calls(inputs, direction, format, peer.compiled())
            for call in calls:
                call()
        return calls, ""
    except Exception as fault:  # whatever: compilers are many
        return None, f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"[:200]
