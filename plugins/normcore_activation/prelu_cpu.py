"""prelu on the CPU: runs of numbers with one slope, or rows with a slope for each number. See prelu.py."""

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.streaming import either_way, leaves_cache
from normcore_activation.gated import inlined
from normcore_activation.leaky_relu import leaky_relu

CHUNK = 16384  # numbers a task takes
ROWS = 64  # rows of channels that are summed before float64 takes over

_scalars = leaky_relu.scalars[""]
value, slope = inlined(_scalars.forward), inlined(_scalars.derivatives[0])


@inline
def slope_gradient(x, dy):
    return 0.0 if x > 0.0 else x * dy


# -- CPU, one slope for a run of numbers: x (P, L), plane p of channel p % C -----------------------------------


@inline
def forward_run(x, w, y):
    for i in range(y.size):
        y[i] = value(x[i], w)


@inline
def gradient_run(x, dy, w, dx):
    for i in range(dx.size):
        dx[i] = dy[i] * slope(x[i], real(0), w)
        line_by_line()


forward_part = either_way(forward_run, ["x"], ["y"])
gradient_part = either_way(gradient_run, ["x", "dy"], ["dx"])


@inline(reassociate=True)
def slope_gradient_sum(x, dy):
    total = real(0)
    for i in range(x.size):
        total += slope_gradient(x[i], dy[i])
    return total


@cpu
def forward_planes(x, weight, y):
    far = leaves_cache(y)
    length = x.shape[1]
    pieces = (length + CHUNK - 1) // CHUNK
    for task in prange(x.shape[0] * pieces):
        p = task // pieces
        lo = (task - p * pieces) * CHUNK
        hi = min(length, lo + CHUNK)
        forward_part(x[p, lo:hi], weight[p % weight.size], y[p, lo:hi], far)


@cpu
def backward_planes(x, dy, weight, dx, wanted, partial, dweight):
    """partial (P, pieces)."""
    far = leaves_cache(dx)
    length = x.shape[1]
    pieces = partial.shape[1]
    channels = weight.size
    for task in prange(x.shape[0] * pieces):
        p = task // pieces
        k = task - p * pieces
        lo = k * CHUNK
        hi = min(length, lo + CHUNK)
        if wanted:
            gradient_part(x[p, lo:hi], dy[p, lo:hi], weight[p % channels], dx[p, lo:hi], far)
        partial[p, k] = wide(slope_gradient_sum(x[p, lo:hi], dy[p, lo:hi]))
    for c in range(channels):
        total = wide(0)
        for p in range(c, x.shape[0], channels):
            for k in range(pieces):
                total += partial[p, k]
        dweight[c] = real(total)


# -- CPU, a slope for each number of a row: x (M, C) -----------------------------------------------------------


@inline
def forward_row(x, w, y):
    for i in range(w.size):
        y[i] = value(x[i], w[i])
        line_by_line()


@inline
def gradient_row(x, dy, w, dx):
    for i in range(w.size):
        dx[i] = dy[i] * slope(x[i], real(0), w[i])
        line_by_line()


forward_row_part = either_way(forward_row, ["x", "w"], ["y"], asked=["x"])
gradient_row_part = either_way(gradient_row, ["x", "dy", "w"], ["dx"], asked=["x", "dy"])


@inline
def add_row(x, dy, total):
    for i in range(total.size):
        total[i] += slope_gradient(x[i], dy[i])


@inline
def fold(short, long):
    for c in range(long.size):
        long[c] += wide(short[c])
        short[c] = real(0)


@cpu
def forward_rows(x, weight, y):
    far = leaves_cache(y)
    group = max(1, CHUNK // weight.size)
    for task in prange((x.shape[0] + group - 1) // group):
        for r in range(task * group, min(x.shape[0], task * group + group)):
            forward_row_part(x[r], weight, y[r], far)


@cpu
def backward_rows(x, dy, weight, dx, wanted, short, partial, dweight):
    """short and partial (parts, C), in the kernel's precision and in float64."""
    far = leaves_cache(dx)
    parts = partial.shape[0]
    rows = x.shape[0]
    for p in prange(parts):
        for c in range(weight.size):
            short[p, c] = real(0)
            partial[p, c] = wide(0)
        last = rows * (p + 1) // parts
        for lo in range(rows * p // parts, last, ROWS):
            for r in range(lo, min(last, lo + ROWS)):
                if wanted:
                    gradient_row_part(x[r], dy[r], weight, dx[r], far)
                add_row(x[r], dy[r], short[p])
            fold(short[p], partial[p])
    for c in range(weight.size):
        total = wide(0)
        for p in range(parts):
            total += partial[p, c]
        dweight[c] = real(total)
