"""What ops over one axis share: where the axis lies in memory, and how columns are cut into blocks.

A logical axis splits a contiguous array into (outer, size, inner). With inner 1 the axis is a row, contiguous; else
a column, beside inner - 1 others, and kernels work on blocks of columns side by side, so that either is vector code.
A block is small enough for its columns to stay in a cache while they are read more than once.
"""

import math
from typing import NamedTuple

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.layout import physical_shape

BLOCK = (
    1 << 21
)  # bytes of one array's block of columns: long runs of memory beat a block that fits a nearer cache
WIDEST = 4096  # columns of a block at most: a line of each array and the scratch fit the first-level cache
NARROWEST = 64  # columns of a block at least, where there are as many
ALIGNED = 16  # a block's width is a multiple of this: float32 in the widest vectors
PARTS = (
    64  # into which the blocks are dealt out, each with its own scratch; more than any desktop has threads
)
TASKS = 16  # blocks that are wanted at least, so that every thread gets some


class Geometry(NamedTuple):
    """(outer, size, inner) of an array in memory, and its blocks of columns."""

    outer: int
    size: int
    inner: int
    width: int  # columns of a block
    parts: int  # tasks that share the blocks

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.outer, self.size, self.inner


def logical_axis(name: str, axis: int, shape: tuple[int, ...]) -> int:
    """The axis counted from the front. Raises ShapeError when the shape has no such axis."""
    rank = len(shape)
    if not -rank <= axis < rank:
        span = f"use {-rank} to {rank - 1}" if rank else "it has none"
        raise ShapeError(f"{name}: axis {axis} is none of the axes of an input of shape {shape}; {span}")
    return axis % rank


def physical_axis(axis: int, rank: int, format: str) -> int:
    """The axis of the array in memory; axis counts from the front."""
    if format == "channels_last" and rank > 2 and axis > 0:
        return rank - 1 if axis == 1 else axis - 1
    return axis


def split(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """(outer, size, inner) of a physical shape around a physical axis."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def geometry(shape: tuple[int, ...], axis: int, itemsize: int) -> Geometry:
    """How the kernels see a physical shape. Depends on the shape alone."""
    outer, size, inner = split(shape, axis)
    most = min(WIDEST, max(NARROWEST, BLOCK // max(1, size * itemsize)))
    blocks = max(1, -(-inner // most), min(-(-TASKS // max(1, outer)), inner // NARROWEST))
    width = (inner + blocks * ALIGNED - 1) // (blocks * ALIGNED) * ALIGNED
    return Geometry(outer, size, inner, width, max(1, min(PARTS, outer * -(-inner // width) if width else 1)))


class OverAxis(Op):
    """Base of the ops that map every line along one axis to a line of the same size."""

    axis: int = 1

    formats = ("channels_first", "channels_last")
    scratch_rows = 0  # rows of a block's width that a task needs

    def check(self):
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise ParameterError("axis", "a whole number, negative ones counted from the end", self.axis)

    def plan(self, x: Tensor) -> Plan:
        axis = logical_axis(self.name, self.axis, x.shape)
        itemsize = 4 if x.dtype == "float32" else 8
        room = 0
        for format in self.formats:  # which of them it will be is not known yet
            found = geometry(
                physical_shape(x.shape, format), physical_axis(axis, len(x.shape), format), itemsize
            )
            if found.inner > 1:
                room = max(room, found.parts * self.scratch_rows * found.width)
        return Plan(
            y=x.shape, workspace={"columns": Array((room,))} if room else {}, flops=self.cost * x.size
        )

    cost = 16  # floating-point operations per element, about

    def geometry(self, t) -> Geometry:
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            shape = t.y.shape
            axis = physical_axis(self.axis % len(shape), len(shape), t.format)
            found = t.geometry = geometry(shape, axis, 4 if t.dtype == "float32" else 8)
        return found

    def run_cpu(self, t, rows, columns, *arrays):
        """rows[t] on (outer, size) arrays, or columns[t] on (outer, size, inner) ones with scratch and width."""
        g = self.geometry(t)
        if not arrays[0].size:
            return
        if g.inner == 1:
            rows[t](*(a.reshape(g.outer, g.size) for a in arrays))
        else:
            scratch = t.columns[: g.parts * self.scratch_rows * g.width]
            scratch = scratch.reshape(g.parts, self.scratch_rows, g.width)
            columns[t](*(a.reshape(g.shape) for a in arrays), scratch, g.width)

    def run_cuda(self, t, lines, columns, *arrays):
        """A block for each line, or a thread for each column where a warp's columns lie side by side."""
        g = self.geometry(t)
        if not arrays[0].size:
            return
        arrays = tuple(a.reshape(g.shape) for a in arrays)
        if g.inner < 32:
            threads = 32 if g.size <= 256 else 128 if g.size <= 4096 else 512
            lines[t, (g.outer * g.inner, threads)](*arrays)
        else:
            columns[t, g.outer * g.inner](*arrays)
