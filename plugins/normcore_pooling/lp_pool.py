"""Power-average (Lp) pooling: the p-norm of each window that slides over the map.

Forward:  y_o = (sum of |x|^p over the window o)^(1/p)
Backward: dx_i = sign(x_i) |x_i|^(p-1) * sum of dy_o y_o^(1-p) over the windows o that cover x_i
A window of zeros has no slope: it sends 0. p = 1 sums magnitudes, a large p approaches the maximum of them.

The sum is a plain one in windows that ceil_mode or padding cuts, too; padding adds 0.
Numerics: powers in the kernel's own precision, summed in blocks of 128; |x|^p beyond its range is infinite.

Elsewhere: ONNX's LpPool is this. PyTorch's lp_pool drops the absolute value (an odd p keeps signs, and a negative sum
becomes 0) and scales windows that ceil_mode cuts up to full size. For p = 2 and whole windows all agree.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with `out` of normcore.shapes.windows.
float32 and float64. p below 1, a window larger than the padded input, padding of more than half the kernel, a stride of
0 and a wrong number of sizes are errors that show the arithmetic.

Source: Sermanet, Chintala and LeCun 2012, "Convolutional neural networks applied to house numbers digit
classification", arXiv:1204.3968.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.streaming import either_way, leaves_cache
from normcore.shapes import check_padding, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.reduce import NOTHING, Reduction, check_map, geometry_of_windows, spatial_of, workspace

CHUNK = 8192  # elements of a task


@inline
def power(x, p):
    if p == real(2):
        return x * x
    return math.fabs(x) if p == real(1) else math.fabs(x) ** p


@inline
def root(total, p):
    if p == real(2):
        return math.sqrt(total)
    return total if p == real(1) else total ** (real(1) / p)


@inline
def arriving(dy, y, p):
    """What a window passes to all its elements; a window of zeros nothing."""
    if p == real(2):
        return real(0) if y == real(0) else dy / y
    if p == real(1):
        return dy
    return real(0) if y == real(0) else dy * y ** (real(1) - p)


@inline
def slope(x, p):
    """sign(x) |x|^(p - 1)."""
    if p == real(2):
        return x
    sign = real(0) if x == real(0) else math.copysign(real(1), x)
    if x != x:
        sign = x
    return sign if p == real(1) else sign * math.fabs(x) ** (p - real(1))


@inline
def power_run(x, p, u):
    for i in range(x.size):
        u[i] = power(x[i], p)


@inline
def root_run(total, p, y):
    for i in range(y.size):
        y[i] = root(total[i], p)


@inline
def arriving_run(dy, y, p, u):
    for i in range(y.size):
        u[i] = arriving(dy[i], y[i], p)


@inline
def slope_run(x, total, p, dx):
    for i in range(x.size):
        dx[i] = slope(x[i], p) * total[i]


slope_either_way = either_way(slope_run, ["x", "total"], ["dx"])


@cpu
def _powers(x, p, u):
    for k in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(k * CHUNK, min(x.size, k * CHUNK + CHUNK))
        power_run(x[part], real(p), u[part])


@cpu
def _roots(total, p, y):
    for k in prange((y.size + CHUNK - 1) // CHUNK):
        part = slice(k * CHUNK, min(y.size, k * CHUNK + CHUNK))
        root_run(total[part], real(p), y[part])


@cpu
def _arriving(dy, y, p, u):
    for k in prange((y.size + CHUNK - 1) // CHUNK):
        part = slice(k * CHUNK, min(y.size, k * CHUNK + CHUNK))
        arriving_run(dy[part], y[part], real(p), u[part])


@cpu
def _slopes(x, total, p, dx):
    for k in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(k * CHUNK, min(x.size, k * CHUNK + CHUNK))
        slope_either_way(x[part], total[part], real(p), dx[part], leaves_cache(dx))


@cuda
def _powers_cuda(x, p, u):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        u[i] = power(x[i], real(p))


@cuda
def _roots_cuda(total, p, y):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        y[i] = root(total[i], real(p))


@cuda
def _arriving_cuda(dy, y, p, u):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        u[i] = arriving(dy[i], y[i], real(p))


@cuda
def _slopes_cuda(x, total, p, dx):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        dx[i] = slope(x[i], real(p)) * total[i]


class Norm(Op):
    """What lp_pool and global_lp_pool share: powers, sums over `geometry(spatial)`, roots, and back."""

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
    backward_needs = ("x", "y")

    def geometry(self, spatial):
        raise NotImplementedError

    def check(self):
        if not 1 <= self.p < math.inf:
            raise ParameterError(
                "p", "a number of at least 1 (for the largest magnitude: abs, then max_pool)", self.p
            )

    def planned(self, x, shape):
        scratch = {"powers": Array((x.size,)), "sums": Array((math.prod(shape),))}
        return Plan(
            y=shape, workspace={**workspace(self.geometry(x.shape[2:]), x.shape), **scratch}, flops=4 * x.size
        )

    def _reduction(self, t):
        spatial = spatial_of(t)
        return Reduction.of(t, t.x.shape, lambda: self.geometry(spatial))

    def forward_cpu(self, t):
        if self.p == 2:
            self._reduction(t).squares(t, t.x, t.sums)
        else:
            _powers[t](t.x.reshape(-1), float(self.p), t.powers)
            self._reduction(t).average(t, t.powers, t.sums)
        _roots[t](t.sums, float(self.p), t.y.reshape(-1))

    def backward_cpu(self, t):
        if t.dx is None:
            return
        _arriving[t](t.dy.reshape(-1), t.y.reshape(-1), float(self.p), t.sums)
        if self.p == 2:  # the slope is x itself
            self._reduction(t).spread_times(t, t.sums, t.x, t.dx)
        else:
            self._reduction(t).spread(t, t.sums, t.powers)
            _slopes[t](t.x.reshape(-1), t.powers, float(self.p), t.dx.reshape(-1))

    def forward_cuda(self, t):
        if t.y.size:
            _powers_cuda[t, t.x.size](t.x.reshape(-1), float(self.p), t.powers)
            self._reduction(t).average_cuda(t, t.powers, t.sums)
            _roots_cuda[t, t.y.size](t.sums, float(self.p), t.y.reshape(-1))

    def backward_cuda(self, t):
        if t.dx is None or not t.dx.size:
            return
        _arriving_cuda[t, t.y.size](t.dy.reshape(-1), t.y.reshape(-1), float(self.p), t.sums)
        self._reduction(t).spread_cuda(t, t.sums, t.powers)
        _slopes_cuda[t, t.dx.size](t.x.reshape(-1), t.powers, float(self.p), t.dx.reshape(-1))


class LpPool(Norm, name="lp_pool", source="Sermanet et al. 2012, arXiv:1204.3968"):
    """The p-norm of each window.

    kernel_size, stride (default: kernel_size): a number, or one for each spatial dimension. p: of the norm, 1 or more.
    padding: as kernel_size, or [before, after] pairs, or "same". ceil_mode: keep windows that the right end cuts.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    p: float = 2
    padding: int | str | tuple[int | tuple[int, int], ...] = 0
    ceil_mode: bool = False

    samples = (
        Sample("the Euclidean norm", shape=(2, 5, 9, 7), params={"kernel_size": 3, "stride": 2}),
        Sample("an odd p takes magnitudes", shape=(2, 3, 8), params={"kernel_size": 2, "p": 3.0}),
        Sample("a sum of magnitudes", shape=(1, 2, 4, 3, 5), params={"kernel_size": (2, 1, 2), "p": 1.0}),
        Sample(
            "cut windows, a broken p",
            shape=(1, 3, 6, 5),
            params={"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "p": 2.5},
        ),
    )
    error_samples = (
        ErrorSample("no norm", {"kernel_size": 2, "p": 0.5}, None, "at least 1"),
        ErrorSample(
            "larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "4 + padding 0 + 0 = 4 elements"
        ),
        ErrorSample("nothing to slide over", {"kernel_size": 2}, (2, 3), "spatial"),
    )
    benchmarks = sizes.windows("padding")

    def check(self):
        super().check()
        check_sizes("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)

    def windows(self, spatial):
        stride = self.kernel_size if self.stride is None else self.stride
        sliding = (self.kernel_size, stride, self.padding, 1, self.ceil_mode)
        return windows(spatial, *sliding, op=self.name, half_padding=True)

    def geometry(self, spatial):
        return geometry_of_windows(self.windows(spatial), NOTHING)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        return self.planned(x, (*x.shape[:2], *(w.out for w in self.windows(x.shape[2:]))))

    def in_torch(self, torch, x, *, training, **arrays):
        found = self.windows(tuple(x.shape[2:]))
        whole = not any(w.before or (w.out - 1) * w.stride + w.kernel > w.size for w in found)
        if not whole or self.p % 2:
            raise NotImplementedError("lp_pool of magnitudes, and of windows that the map's ends cut")
        pool = getattr(torch.nn.functional, f"lp_pool{len(found)}d")
        given = [tuple(getattr(w, k) for w in found) for k in ("kernel", "stride")]
        if len(found) == 1:
            given = [given[0][0], given[1][0]]
        return pool(x, float(self.p), *given)

    def reference(self, x, **arrays):
        """Window by window, each a norm of the elements it covers."""
        x = np.asarray(x, np.float64)
        axes = self.windows(x.shape[2:])
        y = np.empty((*x.shape[:2], *(w.out for w in axes)))
        for o in np.ndindex(*y.shape[2:]):
            lows = [i * w.stride - w.before for i, w in zip(o, axes, strict=True)]
            inside = [range(max(0, s), min(w.size, s + w.kernel)) for s, w in zip(lows, axes, strict=True)]
            y[(..., *o)] = norm(x[(..., *np.ix_(*inside))], self.p)
        return y


def norm(part, p):
    """The p-norm over all but the first two dimensions."""
    return np.linalg.norm(part.reshape(*part.shape[:2], -1), ord=p, axis=-1)
