"""Convolution of channels-last arrays and dense layers on the CPU: what to run for given shapes.

A Convolution describes the shapes; workspace() the buffers it needs; forward, input_gradient and weight_gradient
run it on an op's Tensors, which hold those buffers by name. A dense layer is a 1 x 1 convolution.

The gradient to the input is a convolution of the output's gradient: with stride 1 of the whole, with windows
turned around; with stride s of s phases in each dimension, since input pixels r, r + s, r + 2 s, ... meet the same
taps. It gathers, so no element is written twice.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from normcore.kernels import conv_weights as weights
from normcore.kernels import cpu, epilogue_gradient, inline, prange
from normcore.kernels.conv_geometry import (
    Four,
    Gather,
    GatherPlan,
    GradientPlan,
    PackPlan,
    Three,
    as_matrix,
    ceil_div,
)
from normcore.kernels.gemm import APART, IN_PLACE, NO_EPILOGUE, gather_gemm
from normcore.kernels.kernel import Variant, variant
from normcore.op import Array

NO_BIAS = {dtype: np.empty(0, dtype) for dtype in ("float32", "float64")}
PIECE = 1 << 14


@dataclass(frozen=True)
class Convolution:
    """Shapes of a convolution, all three-dimensional: batch, input (D, H, W), channels, and how windows lie."""

    batch: int
    size: Three
    in_channels: int
    out_channels: int
    out: Three
    kernel: Three = (1, 1, 1)
    stride: Three = (1, 1, 1)
    before: Three = (0, 0, 0)
    dilation: Three = (1, 1, 1)
    groups: int = 1
    bias: bool = True
    dtype: str = "float32"

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def flops(self) -> int:
        window = math.prod(self.kernel) * self.in_channels // self.groups
        return 2 * self.batch * math.prod(self.out) * self.out_channels * window

    @cached_property
    def gather(self) -> Gather:
        first = tuple(-n for n in self.before)
        image, grid = (*self.size, self.in_channels), (self.batch, *self.out)
        return as_matrix(Gather(image, self.groups, grid, self.kernel, self.stride, first, self.dilation))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Product:
    """One gather_gemm and the weights packed for it."""

    pack: PackPlan
    gather: GatherPlan


def _weight_strides(c: Convolution, forward: bool) -> Three:
    """Elements between neighbouring (groups, columns, inner channels) of (out, in / groups, *kernel)."""
    taps = math.prod(c.kernel)
    inner = c.in_channels // c.groups
    group = c.out_channels // c.groups * inner * taps
    return (group, inner * taps, taps) if forward else (group, taps, inner * taps)


@cache
def _forward(c: Convolution) -> _Product:
    columns, inner = c.out_channels // c.groups, c.in_channels // c.groups
    strides = _weight_strides(c, forward=True)
    pack = PackPlan(c.groups, columns, inner, c.kernel, (0, 0, 0), (1, 1, 1), c.kernel, strides, c.itemsize)
    place: Four = (*c.gather.grid[1:], c.out_channels)
    return _Product(pack, GatherPlan(c.gather, place, (1, 1, 1), (0, 0, 0), c.itemsize))


def _phases(size: int, kernel: int, stride: int, before: int, dilation: int) -> list[tuple[int, ...]]:
    """For each r < stride: r, pixels, taps, first, hop of the gather; first and step of the taps in the kernel.

    Input pixel i = r + s j meets output pixel (i + before - t dilation) / s for the taps t that divide evenly,
    taken last to first so that output pixels ascend.
    """
    found: list[tuple[int, ...]] = []
    for r in range(min(stride, size)):
        taps = [t for t in range(kernel) if (r + before - t * dilation) % stride == 0][::-1]
        at = [(r + before - t * dilation) // stride for t in taps]
        first, hop = (at[0] if at else 0), (at[1] - at[0] if len(at) > 1 else 1)
        tap, step = (taps[0] if taps else 0), (taps[1] - taps[0] if len(taps) > 1 else 1)
        found.append((r, ceil_div(size - r, stride), len(taps), first, hop, tap, step))
    return found


@cache
def _input_gradient(c: Convolution) -> tuple[_Product, ...]:
    columns, inner = c.in_channels // c.groups, c.out_channels // c.groups
    strides = _weight_strides(c, forward=False)
    image = (*c.out, c.out_channels)
    products = []
    axes = [_phases(*axis) for axis in zip(c.size, c.kernel, c.stride, c.before, c.dilation)]
    for phase in itertools.product(*axes):
        r, pixels, taps, first, hop, tap, step = (tuple(axis[i] for axis in phase) for i in range(7))
        gather = Gather(image, c.groups, (c.batch, *pixels), taps, (1, 1, 1), first, hop)  # type: ignore[arg-type]
        if c.stride == (1, 1, 1):
            gather = as_matrix(gather)
        place = (*(gather.grid[1:] if gather.is_matrix else c.size), c.in_channels)
        pack = PackPlan(c.groups, columns, inner, taps, tap, step, c.kernel, strides, c.itemsize)  # type: ignore[arg-type]
        products.append(_Product(pack, GatherPlan(gather, place, c.stride, r, c.itemsize)))  # type: ignore[arg-type]
    return tuple(products)


@cache
def _gradient(c: Convolution) -> GradientPlan:
    return GradientPlan(c.gather, c.out_channels, c.itemsize)


@cache
def forward_workspace(c: Convolution) -> dict[str, Array]:
    """The scratch arrays that forward finds in an op's Tensors."""
    return _buffers(_forward(c).gather)


def _buffers(*plans: GatherPlan | GradientPlan) -> dict[str, Array]:
    return {
        "scratch": Array((max(p.scratch_size for p in plans),)),
        "table": Array((max(p.table_size for p in plans),), "int64"),
        "panels": Array((max(p.panels_size for p in plans if isinstance(p, GatherPlan)),)),
    }


@cache
def workspace(c: Convolution) -> dict[str, Array]:
    """The scratch arrays that the functions below find in an op's Tensors."""
    gradient = _gradient(c)
    return {
        **_buffers(gradient, _forward(c).gather, *(p.gather for p in _input_gradient(c))),
        "partial": Array((gradient.partial_size,)),
        "bias_partial": Array((gradient.bias_size if c.bias else 0,)),
        "gradient": Array((c.batch * math.prod(c.out) * c.out_channels,)),
    }


class _Launch(NamedTuple):
    """What kernels are chosen by: always the parallel form, so that a small layer compiles nothing of its own."""

    variant: Variant


@cache
def launch(given: Variant) -> _Launch:
    """What to index kernels with."""
    return _Launch(variant(given.dtype, True, given.chain) if given.compiled else given)


def forward(t: Any, c: Convolution) -> None:
    """t.y from t.x, t.weight and t.bias, with the fused epilogue."""
    run = launch(t.variant)
    product = _forward(c)
    bias = t.bias if c.bias else NO_BIAS[c.dtype]
    weights.pack_weights[run](t.weight.reshape(-1), bias, t.panels, product.pack.numbers)
    product_to, y, fused = destination(t)
    numbers = product.gather.numbers(fused)
    gather_gemm[run](t.x.reshape(-1), t.panels, product_to, y, t.scratch, t.table, numbers, t.e)


def destination(t: Any) -> tuple[Any, Any, int]:
    """Where a product goes, where what the fused epilogue makes of it, both flat, and how it is fused (gemm.py)."""
    y = t.y.reshape(-1)
    if t.variant.chain is None:
        return y, y, NO_EPILOGUE
    return (y, y, IN_PLACE) if t.z is None else (t.z.reshape(-1), y, APART)


def told_from(t: Any) -> Any:
    """The flat array that the fused epilogue's gradient starts from: the kept value before it, else the output."""
    return (t.y if t.z is None else t.z).reshape(-1)


def repeated(t: Any, c: Convolution, gradient: bool = False) -> Callable[[Any, Any], None]:
    """For one weight and many small products (the steps of a recurrent layer): packs t.weight once.

    Gives a function (source, target): target = source weight^T + bias, or with `gradient` target = source weight.
    c: a dense layer; its bias is t.bias, if it has one. Holds as long as nothing else uses t.panels.
    """
    run = launch(t.variant)
    product = _input_gradient(c)[0] if gradient else _forward(c)
    bias = t.bias if c.bias and not gradient else NO_BIAS[c.dtype]
    weights.pack_weights[run](t.weight.reshape(-1), bias, t.panels, product.pack.numbers)
    numbers = product.gather.numbers(NO_EPILOGUE)

    def multiply(source: Any, target: Any) -> None:
        y = target.reshape(-1)
        gather_gemm[run](source.reshape(-1), t.panels, y, y, t.scratch, t.table, numbers, t.e)

    return multiply


def backward(t: Any, c: Convolution) -> None:
    """t.dx (unless None), t.dweight and t.dbias from t.x, t.dy and t.weight, and t.y or t.z where
    an epilogue is fused."""
    run, gradient = launch(t.variant), t.dy.reshape(-1)
    if t.variant.chain is not None:
        output_gradient[run](told_from(t), gradient, t.gradient, t.e)
        gradient = t.gradient
    if c.batch == 0:
        t.dweight[...] = 0
        if c.bias:
            t.dbias[...] = 0
        return
    dbias, partial = (t.dbias, t.bias_partial) if c.bias else (NO_BIAS[c.dtype],) * 2
    plan = _gradient(c)
    weights.weight_gradient[run](
        t.x.reshape(-1), gradient, t.partial, partial, t.scratch, t.table, plan.numbers
    )
    weights.merge_gradient[run](t.partial, partial, t.dweight.reshape(-1), dbias, plan.merge_numbers)
    if t.dx is None:
        return
    dx, weight = t.dx.reshape(-1), t.weight.reshape(-1)
    for product in _input_gradient(c):
        weights.pack_weights[run](weight, NO_BIAS[c.dtype], t.panels, product.pack.numbers)
        numbers = product.gather.numbers(NO_EPILOGUE)
        gather_gemm[run](gradient, t.panels, dx, dx, t.scratch, t.table, numbers, t.e)


@inline
def output_gradient_piece(known, dy, g, e):
    for i in range(g.size):
        g[i] = epilogue_gradient(known[i], known[i], dy[i], e)


@cpu
def output_gradient(known, dy, g, e):
    """The gradient before the fused epilogue, from the output's gradient and what told_from gives; flat arrays."""
    for piece in prange((g.size + PIECE - 1) // PIECE):
        low, high = piece * PIECE, min(piece * PIECE + PIECE, g.size)
        output_gradient_piece(known[low:high], dy[low:high], g[low:high], e)
