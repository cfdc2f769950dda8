"""Max pooling: the largest value of each window that slides over the map.

Forward:  y_o = max over taps k of x[o * stride - before + k * dilation], taps in the padding left out
Backward: dx_i = sum of dy_o over the windows o whose maximum was x_i; the others get nothing

The FIRST maximum of a window, in row-major order of its taps, takes the whole gradient, and where windows
overlap an element adds up what it gets. So the sum of dx is the sum of dy. What forward keeps for this is
the tap's offset in the window: one byte for windows of up to 256 taps, against eight bytes of a flat index.

A relu before it runs behind it where that saves a pass (normcore/graph/fuse.py), never with return_indices.

Numerics: padding counts as -inf, never as 0. NaN wins over every number. A window always has a tap inside the
input; parameters that break this are errors. Backward owns what it writes (a plane, or a position of all
channels) and adds in the order of the windows: no atomics, the same bits for any number of threads.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with `out` of
normcore.shapes.windows, which also says how ceil_mode and padding="same" round. float32 and float64.
return_indices=True gives a second output of y's shape, int64: the position of each maximum in its map,
flattened row-major, as PyTorch has it. ceil_mode drops windows that would start in the right padding, as
PyTorch, Caffe and ONNX 22 do.

Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
networks", section 3.4 (overlapping pooling).
"""

import math

import numpy as np

from normcore import Array, Op, Plan, ShapeError, Tensor
from normcore.shapes import ONE, check_padding, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.links import of_windows
from normcore_pooling.max_cuda import backward_cuda, flat_indices_cuda, forward_cuda
from normcore_pooling.max_indices import flat_indices
from normcore_pooling.max_lanes import TASKS, bands_of, forward_lanes
from normcore_pooling.max_planes import backward_planes, forward_maps, forward_planes
from normcore_pooling.max_tiles import forward_tiles, tiles_of
from normcore_pooling.positions import LARGEST, MATCH, NO_FACTORS, arguments, reduce_positions, scratch_arrays
from normcore_pooling.whole_map import blocks_of, extremes_of_maps


class MaxPool(Op, name="max_pool", source="Krizhevsky, Sutskever and Hinton 2012, section 3.4"):
    """The largest value of each window; the gradient goes to the first maximum.

    kernel_size, stride (default: kernel_size), dilation: a number, or one for each spatial dimension.
    padding: the same, or [before, after] pairs, or "same". ceil_mode: keep windows that the right end cuts.
    return_indices: also give each maximum's flat position in its map (int64), for max_unpool.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int | tuple[int, int], ...] = 0
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    return_indices: bool = False

    formats = ("channels_last", "channels_first")
    backward_needs = ()
    operation = LARGEST
    picks_extremes = True

    samples = (
        Sample("AlexNet's overlapping windows", shape=(2, 3, 9, 11), params={"kernel_size": 3, "stride": 2}),
        Sample("windows side by side, a remainder left out", shape=(2, 5, 7, 8), params={"kernel_size": 2}),
        Sample(
            "as many outputs as inputs",
            shape=(1, 3, 6, 5),
            params={"kernel_size": 3, "stride": 1, "padding": 1},
        ),
        Sample(
            "one dimension, cut at the end", shape=(2, 3, 8), params={"kernel_size": 3, "ceil_mode": True}
        ),
        Sample(
            "three dimensions, all different",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "stride": (1, 2, 3), "padding": (1, 1, 0)},
        ),
        Sample("dilated", shape=(1, 2, 9, 8), params={"kernel_size": 2, "stride": 1, "dilation": 3}),
        Sample(
            "padding on one side", shape=(1, 2, 5, 6), params={"kernel_size": 2, "padding": ((0, 1), (1, 0))}
        ),
        Sample("same size", shape=(1, 2, 5, 6), params={"kernel_size": 3, "stride": 2, "padding": "same"}),
        Sample(
            "planes side by side and some more, cut at the ends",
            shape=(2, 10, 6, 7),
            params={"kernel_size": 3, "stride": 2, "padding": 1},
        ),
        Sample("whole maps", shape=(2, 9, 5, 6), params={"kernel_size": (5, 6)}),
        Sample("offsets beyond a byte", shape=(1, 2, 20, 18), params={"kernel_size": 17, "stride": 1}),
    )
    error_samples = (
        ErrorSample(
            "larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "4 + padding 0 + 0 = 4 elements"
        ),
        ErrorSample("padding over half", {"kernel_size": 2, "padding": 2}, (2, 3, 8, 8), "at most half"),
        ErrorSample("no step", {"kernel_size": 2, "stride": 0}, None, "stride"),
        ErrorSample("wrong number", {"kernel_size": (2, 2, 2)}, (2, 3, 8, 8), "kernel_size"),
        ErrorSample("nothing to slide over", {"kernel_size": 2}, (2, 3), "spatial"),
    )

    benchmarks = sizes.windows()

    def in_torch(self, torch, x, *, training, **arrays):
        # torch pads both sides alike, by less than the extreme itself, so padding it beforehand is the same.
        found = self.windows(tuple(x.shape[2:]))[5 - x.dim() :]
        symmetric = all(w.before == w.after for w in found) and self.padding != "same"
        if not symmetric:
            sides = [side for w in reversed(found) for side in (w.before, w.after)]
            x = torch.nn.functional.pad(x, sides, value=-math.inf)
        pool = getattr(torch.nn.functional, f"max_pool{len(found)}d")
        return pool(
            x,
            tuple(w.kernel for w in found),
            tuple(w.stride for w in found),
            tuple(w.before for w in found) if symmetric else 0,
            tuple(w.dilation for w in found),
            self.ceil_mode,
            self.return_indices,
        )

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        check_sizes("dilation", self.dilation)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)

    def windows(self, spatial):
        """Three Windows (depth, height, width); a dimension that is not there is one window of one tap."""
        stride = self.kernel_size if self.stride is None else self.stride
        found = windows(
            spatial,
            self.kernel_size,
            stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            op=self.name,
            half_padding=True,
        )
        return (ONE,) * (3 - len(found)) + found

    def plan(self, x: Tensor) -> Plan:
        if not 3 <= len(x.shape) <= 5:
            raise ShapeError(
                f"{self.name}: expected (N, C, *spatial) with 1 to 3 spatial dimensions, got {x.shape}"
            )
        found = self.windows(x.shape[2:])
        out = tuple(w.out for w in found)
        shape = (*x.shape[:2], *out[5 - len(x.shape) :])
        taps = math.prod(w.kernel for w in found)
        small = next(
            kind for kind in ("uint8", "uint16", "uint32") if taps <= 1 << 8 * np.dtype(kind).itemsize
        )
        planes = x.shape[0] * x.shape[1]
        tiles = tiles_of(found, planes)
        bands = None if tiles else bands_of(found, planes, np.dtype(x.dtype).itemsize)
        row = max(1, min(TASKS, x.shape[0] * out[0] * out[1])) * found[2].size
        rows = {"v": Array((row,)), "vi": Array((row,), small)}
        y = {"y": Tensor(shape, x.dtype), "indices": Tensor(shape, "int64")} if self.return_indices else shape
        return Plan(
            y=y,
            saved={"arg": Array((math.prod(shape),), small)},
            workspace={
                **(tiles.scratch() if tiles else bands.scratch(small) if bands else rows),
                "starts": Array((math.prod(out),), "uint64"),
                "reach": Array((taps,), "uint64"),
                **scratch_arrays(of_windows(found)),
            },
            flops=math.prod(shape) * taps,
        )

    def forward_cpu(self, t):
        g = self._geometry(t)
        arg, y = t.arg.reshape(g.y), t.y.reshape(g.y)
        if not arg.size:
            return
        largest = self.operation == LARGEST
        if g.whole and not g.first:
            batch, channels = g.y[0], g.y[-1]
            forward = extremes_of_maps.with_constants(TAP=arg.dtype.type, MAXIMUM=largest)
            sizes = (math.prod(g.x[1:-1]), channels, blocks_of(batch, channels))
            forward[t](t.x.reshape(-1), t.y.reshape(-1), t.arg, *sizes)
        elif g.whole:
            forward = forward_maps.with_constants(TAP=arg.dtype.type, MAXIMUM=largest)
            forward[t](t.x.reshape(-1), t.y.reshape(-1), t.arg, math.prod(g.x[1:]))
        elif g.tiles:
            constants = {"TAP": arg.dtype.type, "MAXIMUM": largest, **g.tiles.constants}
            sizes = (g.x[1:], g.y[1:], g.window[1], g.tiles.rows)
            forward = forward_tiles.with_constants(**constants)
            forward[t](t.x.reshape(-1), t.y.reshape(-1), t.arg, g.tiles.array(t), *sizes)
        elif g.bands:
            forward = forward_lanes.with_constants(LANES=g.bands.lanes, MAXIMUM=largest)
            sizes = (g.x[0], g.x[1:], g.y[1:], *g.window, g.bands.rows)
            forward[t](t.x.reshape(-1), t.y.reshape(-1), t.arg, *g.bands.arrays(t), *sizes)
        elif g.first:
            scratch = (_cut(t.v, g.x[-1]), _cut(t.vi, g.x[-1]))
            forward = forward_planes.with_constants(TAP=arg.dtype.type, MAXIMUM=largest)
            forward[t](t.x.reshape(g.x), y, arg, *scratch, *g.window)
        else:
            reduce = reduce_positions.with_constants(OPERATION=self.operation)
            reduce[t](t.x.reshape(-1), t.y.reshape(-1), t.arg, NO_FACTORS, *g.forward)
        if self.return_indices:
            flat_indices[t](t.arg.reshape(g.y5), t.indices.reshape(g.y5), *g.map, *g.window)

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._geometry(t)
        t.starts[:], t.reach[:] = g.starts, g.reach
        if g.first:
            flat = (g.y[0], math.prod(g.y[1:]))
            dx = t.dx.reshape(g.x[0], math.prod(g.x[1:]))
            backward_planes[t](t.dy.reshape(flat), t.arg.reshape(flat), dx, t.starts, t.reach)
        else:
            reduce = reduce_positions.with_constants(OPERATION=MATCH)
            reduce[t](t.dy.reshape(-1), t.dx.reshape(-1), t.arg, NO_FACTORS, *g.backward)

    def forward_cuda(self, t):
        g = self._geometry(t)
        arg = t.arg.reshape(g.y5)
        if arg.size:
            forward = forward_cuda.with_constants(TAP=arg.dtype.type, MAXIMUM=self.operation == LARGEST)
            forward[t, arg.size](t.x.reshape(g.x5), t.y.reshape(g.y5), arg, *g.window)
            if self.return_indices:
                flat_indices_cuda[t, arg.size](arg, t.indices.reshape(g.y5), *g.map, *g.window)

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            g = self._geometry(t)
            arg = t.arg.reshape(g.y5)
            backward = backward_cuda.with_constants(TAP=arg.dtype.type)
            backward[t, t.dx.size](t.dy.reshape(g.y5), arg, t.dx.reshape(g.x5), *g.window)

    def _geometry(self, t):
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            found = t.geometry = _Geometry(self, t)
        return found

    def reference(self, x, **arrays):
        """Window by window, each a plain maximum of the elements it covers."""
        x = np.asarray(x, np.float64)
        rank = x.ndim - 2
        axes = self.windows(x.shape[2:])[3 - rank :]
        y = np.empty((*x.shape[:2], *(w.out for w in axes)))
        for o in np.ndindex(*y.shape[2:]):
            cover = [
                [
                    p
                    for p in range(i * w.stride - w.before, i * w.stride - w.before + w.span, w.dilation)
                    if 0 <= p < w.size
                ]
                for i, w in zip(o, axes, strict=True)
            ]
            y[(..., *o)] = self.extreme(x[(..., *np.ix_(*cover))], axis=tuple(range(2, x.ndim)))
        return y

    extreme = staticmethod(np.max)


class _Geometry:
    """Shapes as the kernels see them, and the windows as four tuples of three."""

    def __init__(self, op, t):
        shape = t.x.shape
        self.first = t.format == "channels_first"
        outer = (shape[0] * shape[1],) if self.first else (shape[0],)
        spatial = shape[2:] if self.first else shape[1:-1]
        inner = () if self.first else shape[-1:]
        found = op.windows(spatial)
        size = tuple(w.size for w in found)
        self.x = (*outer, *size, *inner)
        self.y = (*outer, *(w.out for w in found), *inner)
        self.tiles = tiles_of(found, self.x[0]) if self.first else None
        lanes = self.first and not self.tiles
        self.bands = bands_of(found, self.x[0], t.x.dtype.itemsize) if lanes else None
        self.whole = all(w.kernel == w.size and w.out == 1 and w.before == 0 for w in found)
        one = (1,) if self.first else ()
        self.x5, self.y5 = (*self.x, *one), (*self.y, *one)
        self.map = size[1:]
        self.window = (
            tuple(w.kernel for w in found),
            tuple(w.stride for w in found),
            tuple(w.before for w in found),
            tuple(w.dilation for w in found),
        )
        if not self.first:
            both = of_windows(found)
            self.forward = arguments(both, shape[0], shape[-1], "forward", t.terms, t.weights)
            self.backward = arguments(both, shape[0], shape[-1], "backward", t.terms, t.weights)
        # Offsets in a map, modulo 2^64: a window may start before the map, the sum of both lies inside.
        taps = [np.arange(v.kernel) * v.dilation for v in found]
        starts = [np.arange(v.out) * v.stride - v.before for v in found]
        apart = 1 if self.first else shape[-1]
        self.reach = (_offsets(taps, size) * apart).astype(np.uint64)
        self.starts = (_offsets(starts, size) * apart).astype(np.uint64)


def _cut(scratch, *shape):
    """A flat array as scratch of this shape for as many tasks as it holds."""
    size = math.prod(shape)
    tasks = min(TASKS, scratch.size // size)
    return scratch[: tasks * size].reshape(tasks, *shape)


def _offsets(places, size):
    """Flat offsets in a map of this size, of every combination of places along its three dimensions."""
    d, h, w = places
    return ((d[:, None, None] * size[1] + h[:, None]) * size[2] + w).reshape(-1)
