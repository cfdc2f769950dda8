"""Fractional max pooling: the maximum of windows at pseudo-random places, for outputs of any size.

Forward:  along each axis, with alpha = (size - kernel) / (out - 1) and u in [0, 1) drawn for each sample, channel
          and axis, window o starts at int((o + u) * alpha) - int(u * alpha); the last one at size - kernel, so
          that it reaches the end. y_o = the maximum of the window.
Backward: dy_o to the first maximum of window o; where windows overlap an element adds up what it gets.
Inference takes u = 1/2 everywhere, so that a sample's result depends on nothing but the sample (PyTorch draws in
evaluation too; the paper averages several draws).

The output has `output_size` elements along each axis, or floor(size * output_ratio). The sequences are the
pseudo-random ones of the paper as PyTorch computes them, in the dtype of x; `u` is that of element
(n * C + c) * d + axis of the layer's Philox stream: the same for any number of threads, memory format and
device. NaN wins over every number.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out). return_indices=True gives a second output
of y's shape, int64: the position of each maximum in its map, flattened row-major, as PyTorch has it. float32 and
float64. out + kernel - 1 > size is a ShapeError: windows would have to stand still (PyTorch refuses equality too in 3-D).

Forward keeps each maximum's position, on the CPU in its map, on CUDA in its window.

Source: Graham 2014, "Fractional max-pooling", arXiv:1412.6071, section 2.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.random import uniform, uniform_32
from normcore.shapes import check_sizes, per_dimension
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import fractional_planes as planes
from normcore_pooling import interval_backward as backward
from normcore_pooling import interval_forward as forward
from normcore_pooling.adaptive_max_pool import widen
from normcore_pooling.interval_windows import (
    FRACTIONAL,
    Geometry,
    axes_of,
    check_rank,
    offset_of,
    start_of,
    tap_dtype,
)


@inline
def draw(offsets, plane, rank, key, call, training):
    for axis in range(3):
        k = axis - (3 - rank)
        u = real(0.5)
        if training and k >= 0:
            u = real(uniform_32(key, plane * rank + k, call, 0))
        offsets[plane, axis] = u


@cpu
def _draw_cpu(offsets, rank, key, call, training):
    for plane in prange(offsets.shape[0]):
        draw(offsets, np.int64(plane), rank, key, call, training)


@cuda
def _draw_cuda(offsets, rank, key, call, training):
    for plane in range(cu.grid(1), offsets.shape[0], cu.gridsize(1)):
        draw(offsets, plane, rank, key, call, training)


@inline
def index_one(arg, indices, offsets, i, size, out, kernel, stride):
    """indices: flat positions in a map from the offsets of taps; element i of arg (A, OD, OH, OW, B)."""
    at = axes_of(i, arg.shape[4], out)
    plane = at[0] * arg.shape[4] + at[4]
    tap = np.int64(arg[at])
    line = tap // kernel[2]
    w = start_of(at[3], size[2], out[2], kernel[2], stride[2], offset_of(offsets, plane, 2))
    h = start_of(at[2], size[1], out[1], kernel[1], stride[1], offset_of(offsets, plane, 1))
    d = start_of(at[1], size[0], out[0], kernel[0], stride[0], offset_of(offsets, plane, 0))
    d += line // kernel[1]
    h += line % kernel[1]
    indices[at] = (d * size[1] + h) * size[2] + w + tap - line * kernel[2]


@cuda
def _indices_cuda(arg, indices, offsets, size, out, kernel, stride):
    for i in range(cu.grid(1), arg.size, cu.gridsize(1)):
        index_one(arg, indices, offsets, i, size, out, kernel, stride)


class FractionalMaxPool(Op, name="fractional_max_pool", source="Graham 2014, arXiv:1412.6071"):
    """The maximum of windows at pseudo-random places, so that maps shrink by any ratio.

    kernel_size: a number, or one for each spatial dimension. Exactly one of output_size (the same) and
    output_ratio (above 0 and below 1; the same) says how large the output is. return_indices: also give each
    maximum's flat position in its map (int64), for max_unpool.
    """

    kernel_size: int | tuple[int, ...]
    output_ratio: float | tuple[float, ...] | None = None
    output_size: int | tuple[int, ...] | None = None
    return_indices: bool = False

    formats = ("channels_first",)  # every channel has windows of its own
    cuda_formats = ("channels_first", "channels_last")
    backward_needs = ()
    stochastic = True

    samples = (
        Sample("a ratio", shape=(2, 3, 9, 11), params={"kernel_size": 2, "output_ratio": 0.7}),
        Sample("inference", shape=(2, 3, 9, 10), params={"kernel_size": 3, "output_size": 4}, training=False),
        Sample("a sequence", shape=(3, 5, 13), params={"kernel_size": 2, "output_size": 8}),
        Sample(
            "volumes, all different",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "output_ratio": (0.5, 0.4, 0.9)},
        ),
        Sample("one window, the last", shape=(2, 3, 6, 5), params={"kernel_size": 2, "output_size": 1}),
    )
    benchmarks = (
        Sample("AlexNet, first pool", shape=(32, 96, 55, 55), params={"kernel_size": 3, "output_size": 27}),
    )
    error_samples = (
        ErrorSample("no size", {"kernel_size": 2}, None, "output_ratio or output_size"),
        ErrorSample("enlarges", {"kernel_size": 2, "output_ratio": 1.5}, None, "below 1"),
        ErrorSample(
            "too many windows", {"kernel_size": 3, "output_size": 4}, (2, 3, 5, 9), "4 + 3 - 1 = 6 elements"
        ),
        ErrorSample("no output", {"kernel_size": 1, "output_ratio": 0.1}, (2, 3, 5, 9), "floor(5 * 0.1) = 0"),
        ErrorSample("nothing to slide over", {"kernel_size": 2, "output_size": 2}, (2, 3), "spatial"),
    )

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        if (self.output_ratio is None) == (self.output_size is None):
            given = {"output_ratio": self.output_ratio, "output_size": self.output_size}
            raise ParameterError("output_ratio", "exactly one of output_ratio or output_size", given)
        if self.output_size is not None:
            check_sizes("output_size", self.output_size)
        elif not all(0 < r < 1 for r in _tuple(self.output_ratio)):
            raise ParameterError("output_ratio", "numbers above 0 and below 1", self.output_ratio)

    def sizes(self, spatial):
        """(out, kernel), a number for each spatial dimension. Raises ShapeError with the arithmetic."""
        rank = len(spatial)
        kernel = per_dimension("kernel_size", self.kernel_size, rank)
        if self.output_size is not None:
            out = per_dimension("output_size", self.output_size, rank)
            how = [""] * rank
        else:
            ratios = _tuple(self.output_ratio) * (rank if len(_tuple(self.output_ratio)) == 1 else 1)
            if len(ratios) != rank:
                raise ParameterError(
                    "output_ratio", f"a number or {rank}, one for each spatial dimension", self.output_ratio
                )
            out = tuple(math.floor(s * r) for s, r in zip(spatial, ratios, strict=True))
            how = [f" = floor({s} * {r})" for s, r in zip(spatial, ratios, strict=True)]
        for axis, (size, o, k) in enumerate(zip(spatial, out, kernel, strict=True)):
            place = f"{self.name}: spatial dimension {axis} of {tuple(spatial)}"
            if o < 1:
                raise ShapeError(f"{place}: the output would have{how[axis]} = {o} elements; take more")
            if o + k - 1 > size:
                raise ShapeError(
                    f"{place}: {o}{how[axis]} windows of {k} need at least {o} + {k} - 1 = {o + k - 1} "
                    f"elements, there are {size}; use a smaller kernel_size or output"
                )
        return out, kernel

    def plan(self, x: Tensor) -> Plan:
        check_rank(self.name, x.shape)
        out, kernel = self.sizes(x.shape[2:])
        shape = (*x.shape[:2], *out)
        size, ones = math.prod(shape), (1,) * (3 - len(out))
        y = {"y": Tensor(shape, x.dtype), "indices": Tensor(shape, "int64")} if self.return_indices else shape
        return Plan(
            y=y,
            saved={
                "arg": Array((size,), tap_dtype(math.prod(x.shape[2:]))),
                "offsets": Array((x.shape[0] * x.shape[1], 3)),
            },
            workspace=planes.scratch_arrays((*ones, *x.shape[2:]), (*ones, *out)),
            flops=size * math.prod(kernel),
        )

    def forward_cpu(self, t):
        if not t.y.size:
            return
        g = self._geometry(t)
        _draw_cpu[t](t.offsets, t.x.ndim - 2, t.key, t.call, t.training)
        kernel = planes.forward_planes.with_constants(RULE=FRACTIONAL, TAP=np.uint32)
        x, y, arg = t.x.reshape(g.x[:4]), t.y.reshape(g.y[:4]), t.arg.reshape(g.y[:4])
        scratch = planes.scratch_of(t, g.x[0], g.size, g.out)
        kernel[t](x, y, arg, t.offsets, *scratch, g.size, g.out, g.kernel)
        if self.return_indices:
            widen[t](t.arg, t.indices.reshape(-1))

    def backward_cpu(self, t):
        if t.dx is not None and t.dx.size:
            count = t.offsets.shape[0]
            dy, arg, dx = (a.reshape(count, -1) for a in (t.dy, t.arg, t.dx))
            planes.backward_planes[t](dy, arg, dx)

    def forward_cuda(self, t):
        g = self._geometry(t)
        if not t.y.size:
            return
        _draw_cuda[t, t.offsets.shape[0]](t.offsets, t.x.ndim - 2, t.key, t.call, t.training)
        self._made(t, forward.forward_cuda)[t, t.y.size](*self._arrays(t, g), *g.windows)
        if self.return_indices:
            arrays = (t.arg.reshape(g.y), t.indices.reshape(g.y), t.offsets)
            _indices_cuda.with_constants(RULE=FRACTIONAL)[t, t.y.size](*arrays, *g.windows)

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            g = self._geometry(t)
            kernel = self._made(t, backward.backward_cuda)
            kernel[t, t.dx.size](*self._gradients(t, g), *g.windows)

    def _geometry(self, t):
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            spatial = t.x.shape[2:] if t.format == "channels_first" else t.x.shape[1:-1]
            found = t.geometry = Geometry(t.x.shape, t.format, *self.sizes(spatial))
        return found

    def _made(self, t, kernel):
        return kernel.with_constants(RULE=FRACTIONAL, MODE=forward.MAX, TAP=t.arg.dtype.type)

    def _arrays(self, t, g):
        y = t.y.reshape(g.y)
        return t.x.reshape(g.x), y, t.arg.reshape(g.y), y, t.offsets.reshape(-1), t.offsets

    def _gradients(self, t, g):
        dy, dx = t.dy.reshape(g.y), t.dx.reshape(g.x)
        return dy, t.arg.reshape(g.y), dx, t.offsets.reshape(-1), t.offsets

    def in_torch(self, torch, x, *, training, **arrays):
        """With PyTorch's samples set to inference's 1/2; it has no 1-D form, which is a 2-D one of height 1."""
        out, kernel = self.sizes(tuple(x.shape[2:]))
        flat = x.dim() == 3
        if flat:
            x, out, kernel = x.unsqueeze(2), (1, *out), (1, *kernel)
        rank = x.dim() - 2
        middle = torch.full((*x.shape[:2], rank), 0.5, dtype=x.dtype, device=x.device)
        pool = getattr(torch.nn.functional, f"fractional_max_pool{rank}d_with_indices")
        y, indices = pool(x, kernel, output_size=out, _random_samples=middle)
        y, indices = (y.squeeze(2), indices.squeeze(2)) if flat else (y, indices)
        return (y, indices) if self.return_indices else y

    def reference(self, x, *, training=True, key=0, call=0, dtype="float64", **arrays):
        """Plane by plane, with the draws from the array half of the generator."""
        x = np.asarray(x, np.float64)
        out, kernel = self.sizes(x.shape[2:])
        batch, channels, rank = x.shape[0], x.shape[1], x.ndim - 2
        u = np.full((batch, channels, rank), 0.5)
        if training:
            u = uniform(int(key), u.shape, "float32", call)
        y = np.empty((batch, channels, *out))
        for n, c in np.ndindex(batch, channels):
            starts = [
                _starts(s, o, k, np.dtype(dtype).type(v))
                for s, o, k, v in zip(x.shape[2:], out, kernel, u[n, c], strict=True)
            ]
            for place in np.ndindex(*out):
                cut = [slice(s[i], s[i] + k) for s, i, k in zip(starts, place, kernel, strict=True)]
                y[(n, c, *place)] = x[(n, c, *cut)].max()
        return y


def _starts(size, out, kernel, u):
    """Where the windows along an axis start, all at once; u's dtype is that of the arithmetic."""
    real = type(u)
    alpha = real(size - kernel) / real(max(1, out - 1))
    places = ((np.arange(out, dtype=real) + u) * alpha).astype(int) - int(u * alpha)
    places[-1] = size - kernel
    return places


def _tuple(value):
    return tuple(value) if isinstance(value, tuple | list) else (value,)
