"""Max unpooling: each value goes back to the place where max pooling found it, zeros everywhere else.

Forward:  y[indices_o] = x_o within each map, 0 elsewhere
Backward: dx_o = dy[indices_o]

indices are what max_pool, min_pool and adaptive_max_pool give with return_indices=True: positions in a map, flattened
row-major, int64. Where two values name one place, the later in row-major order wins, and both get its gradient, as in
PyTorch on the CPU. In YAML:

    - max_pool: {kernel_size: 2, return_indices: true}
      name: pool
    - conv: ...
    - max_unpool: {kernel_size: 2}
      inputs: [conv1, pool.indices]

The output has the size that the pooling had as input, (in - 1) stride - before - after + kernel, or output_size where
the pooling left a remainder out. An index outside the map is a ShapeError; on a GPU, where asking would wait for the
device, it turns the whole output into NaN.

Elsewhere: PyTorch is the same. ONNX's MaxUnpool counts indices through the whole tensor instead of each map: take them
modulo the map's size. Caffe has none.
Shapes: x, indices (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out). float32 and float64.

Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", arXiv:1311.2901, section 2.1.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.shapes import check_padding, check_sizes, per_dimension
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling.max_planes import clear
from normcore_pooling.reduce import check_map

# -- kernels: x, indices (A, positions, B), y (A, places, B); A = N * C and B = 1 channels first, A = N and B = C last


@inline
def scatter_plane(x, indices, y):
    """A map of one channel; how many indices lie outside."""
    wrong = 0
    for i in range(x.size):
        place = np.uint64(indices[i])  # what is negative is larger than any map
        if place < np.uint64(y.size):
            y[place] = x[i]
        else:
            wrong += 1
    return wrong


@inline
def gather_plane(dy, indices, dx):
    for i in range(dx.size):
        dx[i] = dy[np.uint64(indices[i])]


@cpu
def _scatter_first(x, indices, y, wrong):
    """wrong (A,): how many indices lie outside the map. A map has one owner."""
    for a in prange(x.shape[0]):
        clear(y[a])
        wrong[a] = scatter_plane(x[a], indices[a], y[a])


@cpu
def _scatter_last(x, indices, y, wrong):
    places, channels = y.shape[1], y.shape[2]
    for a in prange(x.shape[0]):
        clear(y[a].reshape(-1))
        wrong[a] = 0
        for i in range(x.shape[1]):
            for c in range(channels):
                place = indices[a, i, c]
                if 0 <= place < places:
                    y[a, np.uint64(place), c] = x[a, i, c]
                else:
                    wrong[a] += 1


@cpu
def _gather_first(dy, indices, dx):
    for a in prange(dx.shape[0]):
        gather_plane(dy[a], indices[a], dx[a])


@cpu
def _gather_last(dy, indices, dx):
    for a in prange(dx.shape[0]):
        for i in range(dx.shape[1]):
            for c in range(dx.shape[2]):
                dx[a, i, c] = dy[a, np.uint64(indices[a, i, c]), c]


@cuda
def _clear_cuda(winner, wrong):
    for i in range(cu.grid(1), winner.size, cu.gridsize(1)):
        winner[i] = -1
        if i == 0:
            wrong[0] = 0


@cuda
def _claim_cuda(indices, winner, places, wrong):
    """The latest value that names a place; the maximum of whole numbers is the same in any order."""
    positions, inner = indices.shape[1], indices.shape[2]
    for i in range(cu.grid(1), indices.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        a = rest // positions
        place = indices[a, rest - a * positions, b]
        if place >= 0 and place < places:
            cu.atomic.max(winner, (a * places + place) * inner + b, rest - a * positions)
        else:
            wrong[0] = 1


@cuda
def _place_cuda(x, winner, wrong, y):
    places, inner = y.shape[1], y.shape[2]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        a = rest // places
        k = winner[i]
        value = x[a, k, b] if k >= 0 else real(0)
        y[a, rest - a * places, b] = real(math.nan) if wrong[0] else value


@cuda
def _gather_cuda(dy, indices, dx):
    positions, inner = dx.shape[1], dx.shape[2]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        a = rest // positions
        k = rest - a * positions
        place = indices[a, k, b]
        dx[a, k, b] = dy[a, place, b] if place >= 0 and place < dy.shape[1] else real(math.nan)


# -- the op ------------------------------------------------------------------------------------------------


def _indices(shape, places):
    """Inputs for a sample: values, and distinct places of each map for them."""

    def make(rng):
        count = math.prod(shape[2:])
        maps = [rng.permutation(places)[:count] for _ in range(shape[0] * shape[1])]
        return rng.standard_normal(shape), np.array(maps, np.int64).reshape(shape)

    return make


class MaxUnpool(Op, name="max_unpool", source="Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1"):
    """Values back to the places that max pooling took them from, zeros elsewhere.

    kernel_size, stride (default: kernel_size), padding: those of the pooling; they give the output's size. output_size:
    the size itself, one number for each spatial dimension, where those leave it open.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | tuple[int, ...] = 0
    output_size: tuple[int, ...] | None = None

    inputs = ("x", "indices")
    input_dtypes = (None, "int64")
    formats = ("channels_first", "channels_last")
    backward_needs = ()

    samples = (
        Sample(
            "windows side by side",
            shapes=((2, 3, 4, 3), (2, 3, 4, 3)),
            params={"kernel_size": 2},
            make=_indices((2, 3, 4, 3), 48),
        ),
        Sample(
            "a sequence, the size given",
            shapes=((2, 3, 4), (2, 3, 4)),
            params={"kernel_size": 2, "output_size": (9,)},
            make=_indices((2, 3, 4), 9),
        ),
        Sample(
            "a padded volume",
            shapes=((1, 2, 2, 3, 2), (1, 2, 2, 3, 2)),
            params={"kernel_size": 3, "stride": 2, "padding": 1},
            make=_indices((1, 2, 2, 3, 2), 3 * 5 * 3),
        ),
    )
    error_samples = (
        ErrorSample("other places", {"kernel_size": 2}, ((2, 3, 4, 4), (2, 3, 4, 5)), "indices"),
        ErrorSample("no step", {"kernel_size": 2, "stride": 0}, None, "stride"),
        ErrorSample("no output", {"kernel_size": 1, "padding": 1}, ((2, 3, 1), (2, 3, 1)), "(1 - 1) * 1"),
    )
    benchmarks = tuple(
        Sample(
            reason,
            shapes=(shape, shape),
            params={"kernel_size": 2},
            make=_indices(shape, 4 * shape[2] * shape[3]),
        )
        for reason, shape in (("a decoder's last map", (32, 64, 56, 56)), ("its first map", (32, 256, 7, 7)))
    )

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)
        if self.output_size is not None:
            check_sizes("output_size", self.output_size)

    def sizes(self, spatial):
        """The output's spatial shape."""
        rank = len(spatial)
        if self.output_size is not None:
            return per_dimension("output_size", self.output_size, rank)
        kernel = per_dimension("kernel_size", self.kernel_size, rank)
        stride = kernel if self.stride is None else per_dimension("stride", self.stride, rank)
        padding = per_dimension("padding", self.padding, rank, 0)
        found = []
        for n, k, s, p in zip(spatial, kernel, stride, padding, strict=True):
            out = (n - 1) * s - 2 * p + k
            if out < 1:
                raise ShapeError(
                    f"{self.name}: ({n} - 1) * {s} - 2 * {p} + {k} = {out} places for {n} values in {spatial}; "
                    "use the kernel_size, stride and padding of the pooling, or output_size"
                )
            found.append(out)
        return tuple(found)

    def plan(self, x: Tensor, indices: Tensor) -> Plan:
        check_map(self.name, x.shape)
        if x.shape != indices.shape:
            raise ShapeError(
                f"{self.name}: expected indices of the values' shape {x.shape}, got {indices.shape}"
            )
        if np.dtype(indices.dtype or "int64").kind != "i":
            raise ParameterError(
                "indices", "int64, as max_pool with return_indices gives them", indices.dtype
            )
        shape = (*x.shape[:2], *self.sizes(x.shape[2:]))
        return Plan(
            y=shape,
            workspace={
                "wrong": Array((max(1, x.shape[0] * x.shape[1]),), "int64"),
                "winner": Array((math.prod(shape),), "int64"),
            },
            flops=math.prod(shape),
        )

    def _three(self, t, *arrays):
        """As (A, positions, B)."""
        if t.format == "channels_first":
            return tuple(a.reshape(a.shape[0] * a.shape[1], math.prod(a.shape[2:]), 1) for a in arrays)
        return tuple(a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1]) for a in arrays)

    def _maps(self, t, *arrays):
        """As the CPU's kernels take them."""
        if t.format == "channels_first":
            return tuple(a.reshape(a.shape[0] * a.shape[1], -1) for a in arrays)
        return self._three(t, *arrays)

    def forward_cpu(self, t):
        if not t.x.size:
            return
        x, indices, y = self._maps(t, t.x, t.indices, t.y)
        wrong = t.wrong[: x.shape[0]]
        scatter = _scatter_first if t.format == "channels_first" else _scatter_last
        scatter[t](x, indices, y, wrong)
        if wrong.any():
            raise ShapeError(
                f"{self.name}: {int(wrong.sum())} of {x.size} indices lie outside the map of {y.shape[1]} places; "
                "they must come from a pooling whose input had the output's size (see output_size)"
            )

    def backward_cpu(self, t):
        if t.dx is not None and t.dx.size:
            dy, indices, dx = self._maps(t, t.dy, t.indices, t.dx)
            gather = _gather_first if t.format == "channels_first" else _gather_last
            gather[t](dy, indices, dx)

    def forward_cuda(self, t):
        x, indices, y = self._three(t, t.x, t.indices, t.y)
        if y.size:
            _clear_cuda[t, y.size](t.winner, t.wrong)
            _claim_cuda[t, x.size](indices, t.winner, y.shape[1], t.wrong)
            _place_cuda[t, y.size](x, t.winner, t.wrong, y)

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            dy, indices, dx = self._three(t, t.dy, t.indices, t.dx)
            _gather_cuda[t, dx.size](dy, indices, dx)

    def in_torch(self, torch, x, indices, *, training, **arrays):
        unpool = getattr(torch.nn.functional, f"max_unpool{x.dim() - 2}d")
        out = self.sizes(tuple(x.shape[2:]))
        return unpool(x, indices, self.kernel_size, self.stride, self.padding, out)

    def reference(self, x, indices, **arrays):
        x = np.asarray(x, np.float64)
        y = np.zeros((*x.shape[:2], *self.sizes(x.shape[2:])))
        flat = y.reshape(*x.shape[:2], -1)
        np.put_along_axis(flat, indices.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1), -1)
        return flat.reshape(y.shape)
