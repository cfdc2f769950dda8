"""Dense layers over few rows, on the CPU: the weights are read where they lie.

To pack the weights first (convolution.py) pays when many rows share them; with few it takes a good part of the
product's own time, and with very few more. Here each task reads its part of the weights once:

    forward    y = x weight^T:    dot products along the inputs; a task has some outputs
    backward   dweight = dy^T x and dx = dy weight: a task has some panels of inputs, copied into cache as they are

Work is cut by shape alone and every sum has one order, so the bits do not depend on the number of threads.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcore.kernels import convolution, cpu, inline, prange, real
from normcore.kernels.conv_geometry import ceil_div
from normcore.kernels.dots import DOT_COLUMNS, DOT_ROWS, dot_tile
from normcore.kernels.gemm import NO_EPILOGUE, finish
from normcore.kernels.tile import (
    TILE_ROWS,
    tile_columns,
    tile_columns_1,
    tile_columns_2,
    tile_rows_1,
    tile_rows_2,
)
from normcore.kernels.vector_moves import clear_run, copy_run
from normcore.op import Array

FORWARD_ROWS, BACKWARD_ROWS = 96, 512  # beyond, convolution.py is faster
# Of a line of weights at a time: BLOCK such pieces and those of the rows that they meet stay in L1.
CHUNK_BYTES = 2048
BLOCK = 4 * DOT_COLUMNS
DEPTH = 256  # outputs that one product for dx sums over: a panel of them stays in L1
TASKS = 16


@dataclass(frozen=True)
class Dense:
    """The product of (rows, inputs) with weights (outputs, inputs)."""

    rows: int
    inputs: int
    outputs: int
    bias: bool
    dtype: str

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def forward_tasks(self) -> int:
        return min(TASKS, ceil_div(self.outputs, DOT_COLUMNS))

    @property
    def backward_tasks(self) -> int:
        return min(TASKS, ceil_div(self.inputs, tile_columns(self.itemsize)))

    @property
    def chunk(self) -> int:
        return CHUNK_BYTES // self.itemsize

    @property
    def panel(self) -> int:
        """Elements of a task's panel in backward."""
        return (max(self.rows, min(self.outputs, DEPTH)) + 1) * tile_columns(self.itemsize)


@cache
def as_convolution(d: Dense) -> convolution.Convolution:
    size = (1, d.rows, 1)
    return convolution.Convolution(
        1 if d.rows else 0, size, d.inputs, d.outputs, size, bias=d.bias, dtype=d.dtype
    )


@cache
def workspace(d: Dense) -> dict[str, Array]:
    """The scratch arrays that forward and backward find in an op's Tensors."""
    if d.rows > BACKWARD_ROWS:
        return convolution.workspace(as_convolution(d))
    others = convolution.forward_workspace(as_convolution(d)) if d.rows > FORWARD_ROWS else {}
    scratch = max(d.forward_tasks * BLOCK * (d.chunk + 1), d.backward_tasks * d.panel)
    if others:
        scratch = max(scratch, others["scratch"].shape[0])
    gradient = d.rows * d.outputs + TILE_ROWS  # a tile wider than the rows reads past the last one
    return {**others, "scratch": Array((scratch,)), "gradient": Array((gradient,))}


@cache
def _numbers(d: Dense, fused: int) -> np.ndarray:
    tile = (TILE_ROWS, tile_columns(d.itemsize))
    found = np.array(
        [d.rows, d.inputs, d.outputs, d.forward_tasks, d.backward_tasks, d.chunk, d.panel, fused, *tile],
        np.int64,
    )
    found.flags.writeable = False
    return found


@cache
def _rows_table(d: Dense) -> np.ndarray:
    """Where the rows of the output's gradient begin."""
    found = np.arange(d.rows, dtype=np.int64) * d.outputs
    found.flags.writeable = False
    return found


def forward(t: Any, d: Dense) -> None:
    """t.y from t.x, t.weight and t.bias, with the fused epilogue."""
    if d.rows > FORWARD_ROWS:
        convolution.forward(t, as_convolution(d))
        return
    bias = t.bias if d.bias else convolution.NO_BIAS[d.dtype]
    product, y, fused = convolution.destination(t)
    x, weight = t.x.reshape(-1), t.weight.reshape(-1)
    run = convolution.launch(t.variant)
    multiply[run](x, weight, bias, product, y, t.scratch, _numbers(d, fused), t.e)


def backward(t: Any, d: Dense) -> None:
    """t.dx (unless None), t.dweight and t.dbias from t.x, t.dy and t.weight, and t.y or t.z where
    an epilogue is fused."""
    if d.rows > BACKWARD_ROWS:
        convolution.backward(t, as_convolution(d))
        return
    run, dy = convolution.launch(t.variant), t.dy.reshape(-1)
    if t.variant.chain is not None:
        convolution.output_gradient[run](convolution.told_from(t), dy, t.gradient[: dy.size], t.e)
        dy = t.gradient
    elif d.outputs < TILE_ROWS:
        t.gradient[: dy.size] = dy
        dy = t.gradient
    dbias = t.dbias if d.bias else convolution.NO_BIAS[d.dtype]
    dx = t.dx.reshape(-1) if t.dx is not None else convolution.NO_BIAS[d.dtype]
    x, weight, dweight = t.x.reshape(-1), t.weight.reshape(-1), t.dweight.reshape(-1)
    gradients[run](x, weight, dy, dx, dweight, dbias, t.scratch, _rows_table(d), _numbers(d, NO_EPILOGUE))


@inline
def multiply_task(task, x, weight, bias, product, y, scratch, numbers, e):
    """All rows of some outputs: BLOCK lines of weights at a time, `chunk` of each."""
    rows, inputs, outputs, tasks, chunk = numbers[0], numbers[1], numbers[2], numbers[3], numbers[5]
    units = (outputs + DOT_COLUMNS - 1) // DOT_COLUMNS
    stop = min(units * (task + 1) // tasks * DOT_COLUMNS, outputs)
    own = task * BLOCK * (chunk + 1)
    start_at = own + BLOCK * chunk
    for low in range(units * task // tasks * DOT_COLUMNS, stop, BLOCK):
        count = min(BLOCK, stop - low)
        if bias.size > 0:
            copy_run(scratch, start_at, bias, low, count)
        else:
            clear_run(scratch, start_at, count)
        for k in range(0, inputs, chunk):
            run = min(chunk, inputs - k)
            for j in range(count):
                copy_run(scratch, own + j * chunk, weight, (low + j) * inputs + k, run)
            for r in range(0, rows, DOT_ROWS):
                for j in range(0, count, DOT_COLUMNS):
                    dot_tile(
                        x, r * inputs + k, inputs, scratch, own + j * chunk, chunk, run, scratch, start_at + j,
                        product, r * outputs + low + j, outputs, k == 0, rows - r, count - j,
                    )  # fmt: skip
        if numbers[7] != NO_EPILOGUE:
            finish(product, y, numbers[7], low, outputs, rows, count, e)


@cpu
def multiply(x, weight, bias, product, y, scratch, numbers, e):
    """product = x weight^T + bias and y = epilogue(product), all arrays flat and as in gather_gemm; bias may be empty."""
    for task in prange(numbers[3]):
        multiply_task(np.int64(task), x, weight, bias, product, y, scratch, numbers, e)


@inline
def weight_panel(x, dy, dweight, scratch, own, zeros_at, table, rows, inputs, outputs, k, width, mr, nr):
    """dweight[:, k : k + width] = dy^T x. The last tile lies over the one before it: it must not read past dy."""
    for r in range(rows):
        copy_run(scratch, own + r * nr, x, r * inputs + k, width)
    for tile in range(0, outputs, mr):
        o = max(0, min(tile, outputs - mr))
        if width * 2 > nr:
            tile_columns_2(
                dy, o, table, 0, rows, scratch, own, nr, scratch, zeros_at, dweight, o * inputs + k, inputs,
                True, outputs - o, width,
            )  # fmt: skip
        else:
            tile_columns_1(
                dy, o, table, 0, rows, scratch, own, nr, scratch, zeros_at, dweight, o * inputs + k, inputs,
                True, outputs - o, width,
            )  # fmt: skip


@inline
def input_panel(weight, dy, dx, scratch, own, zeros_at, table, rows, inputs, outputs, k, width, mr, nr):
    """dx[:, k : k + width] = dy weight, DEPTH outputs at a time."""
    for o in range(0, outputs, DEPTH):
        run = min(DEPTH, outputs - o)
        for j in range(run):
            copy_run(scratch, own + j * nr, weight, (o + j) * inputs + k, width)
        for r in range(0, rows, mr):
            if width * 2 > nr:
                tile_rows_2(
                    dy, o, table, r, 0, 1, run, scratch, own, nr, scratch, zeros_at, dx, r * inputs + k, inputs,
                    o == 0, rows - r, width,
                )  # fmt: skip
            else:
                tile_rows_1(
                    dy, o, table, r, 0, 1, run, scratch, own, nr, scratch, zeros_at, dx, r * inputs + k, inputs,
                    o == 0, rows - r, width,
                )  # fmt: skip


@inline
def gradients_task(task, x, weight, dy, dx, dweight, dbias, scratch, table, numbers):
    """Some panels of inputs, and some outputs of the bias."""
    rows, inputs, outputs, tasks, mr, nr = (
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[4],
        numbers[8],
        numbers[9],
    )
    own = task * numbers[6]
    zeros_at = own + numbers[6] - nr
    panels = (inputs + nr - 1) // nr
    clear_run(scratch, zeros_at, nr)
    for panel in range(panels * task // tasks, panels * (task + 1) // tasks):
        k = panel * nr
        width = min(nr, inputs - k)
        weight_panel(x, dy, dweight, scratch, own, zeros_at, table, rows, inputs, outputs, k, width, mr, nr)
        if dx.size > 0:
            input_panel(
                weight, dy, dx, scratch, own, zeros_at, table, rows, inputs, outputs, k, width, mr, nr
            )
    for o in range(dbias.size * task // tasks, dbias.size * (task + 1) // tasks):
        total = real(0)
        for r in range(rows):
            total += dy[r * outputs + o]
        dbias[o] = total


@cpu
def gradients(x, weight, dy, dx, dweight, dbias, scratch, table, numbers):
    """dweight, dbias (or empty) and dx (or empty) from the output's gradient, which TILE_ROWS elements
    follow where outputs are fewer."""
    for task in prange(numbers[4]):
        gradients_task(np.int64(task), x, weight, dy, dx, dweight, dbias, scratch, table, numbers)
