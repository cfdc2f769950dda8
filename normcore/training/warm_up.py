"""Loading or compiling every kernel before the first step, one by one, so that the user sees it happen.

On the CPU the calls of the programs go through their kernels without running them, so any order is fine. Kernels of
a GPU compile when they are launched: there every call runs once, in order, on ones, and parameters, state and the
optimizer's slots are put back after.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from normcore.kernels import kernel
from normcore.network import Network
from normcore.sequences import Sequences
from normcore.training.observer import Observer
from normcore.training.optimizer_binding import OptimizerBinding


def warm_up(
    net: Network,
    loss: Any,
    optimizer: OptimizerBinding | None,
    sizes: tuple[set[int], set[int]],
    observer: Observer,
    helper: Any = None,
    backwards: bool = False,
    mixes: bool = False,
) -> None:
    """Run everything that steps of these batch sizes (for training, for evaluation) will run.

    mixes: the training's targets are shares of the classes.
    helper: started when the first kernel begins to compile; it works from the other end.
    """
    calls: list[tuple[str, Callable[[], None]]] = []
    for training, batches in zip((True, False), sizes, strict=True):
        for batch in sorted(batches, reverse=True):
            calls += _program_calls(net, loss, batch, training, mixes and training)
    if optimizer is not None and sizes[0]:
        calls.append(("optimizer", lambda: _step(optimizer)))
    kept = [(a, a.copy()) for a in (net.store.flat, net.store.flat_gradients, *net.state.values())]
    if optimizer is not None:
        kept += [(a, a.copy()) for a in (getattr(optimizer.t, s) for s in optimizer.optimizer.slots)]

    def begin(number: int, label: str) -> None:
        observer.preparing(number, len(calls), label)
        if helper is not None:
            helper.start()

    compiling_only = kernel.compile_only if net.device.name == "cpu" else contextlib.nullcontext
    try:
        for number, (label, call) in enumerate(reversed(calls) if backwards else calls, start=1):
            with compiling_only(), _before_compiling(net, functools.partial(begin, number, label)):
                call()
    finally:
        if helper is not None:
            helper.stop()
        for array, values in kept:
            array[...] = values
        if optimizer is not None:
            optimizer.steps = 0
        net.forget()


@contextlib.contextmanager
def _before_compiling(net: Network, tell: Callable[[], None]) -> Iterator[None]:
    """Inside, `tell` is called once when a kernel begins to compile; one that the cache has is no news.

    Kernels of a GPU do not say when they compile: there it is called at once.
    """
    if net.device.name != "cpu":
        tell()
        yield
        return
    from numba.core import event

    class Begin(event.Listener):  # type: ignore[misc]
        told = False

        def on_start(self, happened: Any) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, happened: Any) -> None:
            """Of no interest."""

    with event.install_listener("numba:compile", Begin()):
        yield


def _program_calls(
    net: Network, loss: Any, batch: int, training: bool, soft: bool
) -> list[tuple[str, Callable[[], None]]]:
    program = net.program(batch, training, keep=not training)
    bound = net.loss_of(program, loss)
    nbytes = program.graph.input.tensor.size * 8
    x = net.device.empty(nbytes).view(net.dtype)[: program.graph.input.tensor.size]
    x[...] = 1  # not 0: to a GPU's kernels that would be sequences of nothing but padding
    bound.t.targets[...] = 0
    if soft:
        bound.soften()
    given: Any = x.reshape(program.graph.input.tensor.shape)
    if net.reads_lengths:
        given = Sequences(given, net.device.array([1] * batch, "int64"))
    program.set_input(given)
    calls: list[tuple[str, Callable[[], None]]] = [
        (f"{_owner(call)} forward", call) for call in program.forward_calls
    ]
    calls.append(("loss", bound.run))
    if training:
        calls += [(f"{_owner(call)} backward", call) for call in program.backward_calls]
    return calls


def _step(optimizer: OptimizerBinding) -> None:
    optimizer.gather(1)
    optimizer.step(0.0)


def _owner(call: Any) -> str:
    """The layer's path of a bound call."""
    return str(getattr(call.args[0], "path", "gradient sum"))
