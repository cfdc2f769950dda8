"""A simulated kernel's threads: barriers and warps, one CUDA thread at a time.

numba's own runner starts an operating system thread for each CUDA thread and knows neither warp shuffles nor
syncwarp; this one has both. It runs a kernel's text: plainly when there is no barrier in it, else with every function
that waits turned into a generator that yields at its barriers. So a run is repeatable, and a missing barrier shows:
the order of the threads turns round at each barrier, and shared and local memory start as NaN. A barrier that not all
threads of a block (or all lanes of a warp's mask) reach is an error.
"""

import ast
import linecache
import sys
import threading
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcore.devices.ieee_math import ieee_math

WARP = 32
BLOCK_NAMES = frozenset({"syncthreads", "syncthreads_count", "syncthreads_and", "syncthreads_or"})
WARP_NAMES = frozenset(
    {"syncwarp", "shfl_sync", "shfl_up_sync", "shfl_down_sync", "shfl_xor_sync", "ballot_sync"}
    | {"any_sync", "all_sync"}
)
WAITING = BLOCK_NAMES | WARP_NAMES
Waiting = Generator[
    tuple[tuple[int, ...], Any], dict[int, Any], Any
]  # yields (ranks, sent), gets sent by rank
_running = threading.Lock()  # a kernel's names live in its namespace: one launch at a time


class SimulatorError(RuntimeError):
    """A kernel that would hang or give garbage on a GPU."""


# -- kernels as text -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A kernel made ready: its entry (a generator function when it waits) and the namespace that holds its
    cu."""

    entry: Callable[..., Any]
    namespace: dict[str, Any]
    waits: bool
    asks_block: bool  # reads cu.blockDim, so it runs with any whole number of warps


@cache
def kernel_text(function: Any) -> Text:
    """Read the module of a generated kernel's Python function, and rewrite it as the module's docstring
    says."""
    file = function.__code__.co_filename
    tree = ast.parse("".join(linecache.getlines(file)))
    tree.body = [s for s in tree.body if not (isinstance(s, ast.ImportFrom) and s.module == "numba")]
    functions = [s for s in tree.body if isinstance(s, ast.FunctionDef)]
    waiting = _waiting(functions)
    for f in functions:
        f.decorator_list = []
        if f.name in waiting:
            _Yield(waiting).visit(f)
    namespace: dict[str, Any] = {"__name__": f"{function.__module__}_simulated"}
    exec(compile(ast.fix_missing_locations(tree), file, "exec"), namespace)
    namespace["math"] = ieee_math()
    asks = any(isinstance(n, ast.Attribute) and n.attr == "blockDim" for n in ast.walk(tree))
    return Text(namespace["kernel"], namespace, function.__name__ in waiting, asks)


def _called(node: ast.AST) -> str:
    """The function's name when the node calls one, or "cu.<name>"."""
    if not isinstance(node, ast.Call):
        return ""
    f = node.func
    if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "cu":
        return f"cu.{f.attr}"
    return f.id if isinstance(f, ast.Name) else ""


def _waiting(functions: list[ast.FunctionDef]) -> set[str]:
    """Names of the functions that wait, themselves or in what they call; and of the cu functions that do."""
    waiting = {f"cu.{name}" for name in WAITING}
    while True:
        more = {f.name for f in functions if any(_called(n) in waiting for n in ast.walk(f))} - waiting
        if not more:
            return waiting
        waiting |= more


class _Yield(ast.NodeTransformer):
    def __init__(self, waiting: set[str]):
        self.waiting = waiting

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return ast.YieldFrom(node) if _called(node) in self.waiting else node


# -- running -------------------------------------------------------------------------------------------------


class _Thread:
    """One CUDA thread: its place, and in a kernel that waits its generator and what it waits for."""

    __slots__ = ("blockIdx", "body", "rank", "received", "sent", "threadIdx", "waits")

    def __init__(self, block: int, rank: int):
        self.blockIdx = types.SimpleNamespace(x=block, y=0, z=0)
        self.threadIdx = types.SimpleNamespace(x=rank, y=0, z=0)
        self.rank = rank
        self.body: Waiting | None = None  # None: has ended
        self.waits: tuple[int, ...] | None = None  # the ranks it waits for; None: may run
        self.sent: Any = None
        self.received: dict[int, Any] | None = None


def run(text: Text, grid: int, block: int, arguments: list[Any]) -> None:
    """Run a kernel over a one-dimensional grid. Raises SimulatorError."""
    with _running, np.errstate(all="ignore"):
        names = text.namespace["cu"] = _names_class()(grid, block)
        for index in range(grid):
            names.open_block()
            threads = [_Thread(index, rank) for rank in range(block)]
            if text.waits:
                for thread in threads:
                    thread.body = text.entry(*arguments)
                _take_turns(names, threads)
            else:
                for thread in threads:
                    names.current = thread
                    text.entry(*arguments)


def _take_turns(names: Any, threads: list[_Thread]) -> None:
    order = list(threads)
    while True:
        for thread in order:
            if thread.body is None or thread.waits is not None:
                continue
            names.current = thread
            try:
                received, thread.received = thread.received, None
                thread.waits, thread.sent = thread.body.send(received)  # type: ignore[arg-type]
            except StopIteration:
                thread.body = None
        if all(t.body is None for t in threads):
            return
        order.reverse()
        _open_barriers(threads)


def _open_barriers(threads: list[_Thread]) -> None:
    opened = False
    for ranks in {t.waits for t in threads if t.waits is not None}:
        group = [threads[r] for r in ranks]
        if any(t.waits != ranks for t in group):
            continue
        sent = {t.rank: t.sent for t in group}
        for t in group:
            t.received, t.waits = sent, None
        opened = True
    if not opened:
        at = [t.rank for t in threads if t.waits is not None]
        raise SimulatorError(
            f"block {threads[0].blockIdx.x} hangs: {len(at)} of {len(threads)} threads wait at a barrier "
            f"that the others never reach; waiting: {', '.join(map(str, at[:8]))}{' ...' * (len(at) > 8)}"
        )


# -- the names that `cu` has inside kernels ------------------------------------------------------------------


@cache
def _names_class() -> Any:
    """numba's own names, with threads, barriers and warps as above."""
    from numba.cuda.simulator import kernelapi

    class Names(kernelapi.FakeCUDAModule):  # type: ignore[misc]
        current: Any = None

        def __init__(self, grid: int, block: int):
            super().__init__((grid, 1, 1), (block, 1, 1), 0)
            self._local = _Arrays(shared=False)
            self._everybody = tuple(range(block))

        def open_block(self) -> None:
            self._shared = _Arrays(shared=True)

        threadIdx = property(lambda self: self.current.threadIdx)
        blockIdx = property(lambda self: self.current.blockIdx)
        laneid = property(lambda self: self.current.rank % WARP)

        def grid(self, dimensions: int) -> int:
            return self.current.blockIdx.x * self.blockDim.x + self.current.rank  # type: ignore[no-any-return]

        def gridsize(self, dimensions: int) -> int:
            return self.gridDim.x * self.blockDim.x  # type: ignore[no-any-return]

        def syncthreads(self) -> Waiting:
            yield self._everybody, None

        def syncthreads_count(self, value: Any) -> Waiting:
            return sum(map(bool, (yield self._everybody, value).values()))

        def syncthreads_and(self, value: Any) -> Waiting:
            return int(all((yield self._everybody, value).values()))

        def syncthreads_or(self, value: Any) -> Waiting:
            return int(any((yield self._everybody, value).values()))

        def _lanes(self, mask: int, value: Any) -> Waiting:
            """What the lanes of the mask sent, by lane."""
            if self.blockDim.x % WARP:
                raise SimulatorError(
                    f"warp operations need whole warps; this block has {self.blockDim.x} threads"
                )
            lane = self.current.rank % WARP
            first = self.current.rank - lane
            if not int(mask) >> lane & 1:
                raise SimulatorError(
                    f"lane {lane} calls a warp operation whose mask {int(mask):#x} leaves it out"
                )
            ranks = tuple(first + other for other in range(WARP) if int(mask) >> other & 1)
            received = yield ranks, value
            return {rank - first: sent for rank, sent in received.items()}

        def syncwarp(self, mask: int = 0xFFFFFFFF) -> Waiting:
            yield from self._lanes(mask, None)

        def _shuffle(self, mask: int, value: Any, source: int) -> Waiting:
            sent = yield from self._lanes(mask, value)
            if not 0 <= source < WARP:
                return value
            if source not in sent:
                raise SimulatorError(
                    f"a shuffle reads lane {source}, which its mask {int(mask):#x} leaves out"
                )
            return sent[source]

        def shfl_sync(self, mask: int, value: Any, lane: int) -> Waiting:
            return self._shuffle(mask, value, int(lane) % WARP)

        def shfl_up_sync(self, mask: int, value: Any, delta: int) -> Waiting:
            return self._shuffle(mask, value, self.laneid - int(delta))

        def shfl_down_sync(self, mask: int, value: Any, delta: int) -> Waiting:
            return self._shuffle(mask, value, self.laneid + int(delta))

        def shfl_xor_sync(self, mask: int, value: Any, bits: int) -> Waiting:
            return self._shuffle(mask, value, self.laneid ^ int(bits))

        def ballot_sync(self, mask: int, value: Any) -> Waiting:
            sent = yield from self._lanes(mask, value)
            return sum(1 << lane for lane, v in sent.items() if v)

        def any_sync(self, mask: int, value: Any) -> Waiting:
            return any((yield from self._lanes(mask, value)).values())

        def all_sync(self, mask: int, value: Any) -> Waiting:
            return all((yield from self._lanes(mask, value)).values())

    return Names


class _Arrays:
    """cu.shared and cu.local: arrays that start as NaN (or the largest number); a shared one is made once a
    block for each line that asks, as in numba's simulator."""

    def __init__(self, shared: bool):
        self._kept: dict[Any, np.ndarray] | None = {} if shared else None

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
        caller = sys._getframe(1)
        key = (caller.f_code, caller.f_lineno)
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        made = np.empty(shape, _numpy_dtype(dtype))
        made[...] = np.nan if made.dtype.kind == "f" else np.iinfo(made.dtype).max
        if self._kept is not None:
            self._kept[key] = made
        return made


@cache
def _numpy_dtype(dtype: Any) -> "np.dtype[Any]":
    try:
        found: np.dtype[Any] = np.dtype(dtype)
        return found
    except TypeError:  # one of numba's types
        return np.dtype(str(dtype))
