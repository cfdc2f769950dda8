"""Local response normalization: each value divided by a power of the energy of its neighbours.

Forward, over the window W(i) of element i, at one position across channels or at one channel across positions:
    s_i = k + a * sum over j in W(i) of x_j^2        y_i = x_i * s_i^-beta
Backward (s_i depends on each x_j of its window, d s_i / d x_j = 2 a x_j):
    dx_j = dy_j * s_j^-beta - 2 a beta x_j * sum over i with j in W(i) of dy_i * x_i * s_i^(-beta - 1)

THE TWO ALPHAS. The paper multiplies the SUM of squares by alpha: `alpha_scaling: sum`, a = alpha, and uses k = 2,
n = 5, alpha = 1e-4, beta = 0.75. Caffe, PyTorch and ONNX multiply the MEAN, a = alpha / size (alpha / size^2 in a
map), with k = 1: `alpha_scaling: mean`, which is what this op does unless told otherwise. The same alpha is five
times weaker there when size is 5: to repeat the paper, write {alpha_scaling: sum, k: 2}.

The window across channels is i - size//2 .. i + (size - 1)//2, clipped to the channels that are there; a mean divides
by size all the same. The paper's n is odd: n = 5 sums channels i - 2 .. i + 2, so kernel 10 of 96 is normalized by
kernels 8 to 12. Where the bounds are printed as (10 - 5)/2 and (10 + 5)/2, i - n/2 and i + n/2 with whole-number
halves are meant. An even size reaches one further to the front, as in PyTorch.
`region: within` takes a window of size in each spatial dimension, zeros outside the map (Caffe's WITHIN_CHANNEL,
which has k = 1 and odd sizes).

Numerics: beta = 0.75 takes two square roots, 1 / sqrt(s sqrt(s)), or in float32 on the CPU Newton's iteration for the
same (2.2 ulp); other betas exp(-beta log s). Sums are direct,
never a running sum that adds and subtracts. Where squares leave float32, or k is below 1e-10, s is computed
in float64. Forward keeps nothing: backward sums the squares again, cheaper than reading s from memory.

Shapes: x, y (N, C, *spatial), any number of spatial dimensions, (N, C) included; `within` takes 1 to 3. float32 and
float64.

Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks",
section 3.3; the within-channel form: Caffe's LRN layer.
"""

import math
from typing import Literal

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import local_response_cuda
from normcore_normalization.local_response_geometry import TASKS, Geometry
from normcore_normalization.local_response_maps import (
    backward_wide,
    forward_map,
    forward_wide,
    gather_map,
    shares_map,
)
from normcore_normalization.local_response_ring import backward_ring, forward_ring
from normcore_normalization.local_response_rows import backward_row, forward_row
from normcore_normalization.local_response_scalars import LEAST, MOST


class LocalResponseNorm(
    Op,
    name="local_response_norm",
    aliases=("lrn",),
    source="Krizhevsky, Sutskever and Hinton 2012, section 3.3",
):
    """Divide each value by (k + a * the sum of squares over `size` neighbours)^beta.

    a is alpha / size (`alpha_scaling: mean`, the default, as Caffe, PyTorch and ONNX) or alpha itself
    (`alpha_scaling: sum`, as the paper, which also has k=2).

    size: of the window. alpha, beta, k: as above. region: across (channels) or within (a channel's map, size in
    each of its dimensions).
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    alpha_scaling: Literal["mean", "sum"] = "mean"
    region: Literal["across", "within"] = "across"

    stores_16_bits = True
    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)

    samples = (
        Sample("the paper's", shape=(2, 11, 4, 5), params={"alpha": 0.5, "k": 2.0, "alpha_scaling": "sum"}),
        Sample("the libraries' mean", shape=(2, 7, 3, 3), params={"alpha": 1.0}),
        Sample("an even size, another beta", shape=(2, 6, 7), params={"size": 4, "alpha": 1.0, "beta": 0.6}),
        Sample("dense features", shape=(5, 9), params={"size": 3, "alpha": 1.0}),
        Sample("wider than the channels", shape=(2, 3, 4, 2), params={"size": 9, "alpha": 2.0}),
        Sample("a window of one", shape=(2, 3, 5), params={"size": 1, "alpha": 1.0}),
        Sample("within a map", shape=(2, 3, 6, 5), params={"size": 3, "alpha": 2.0, "region": "within"}),
        Sample(
            "within a sequence, an even size",
            shape=(2, 3, 11),
            params={"size": 4, "alpha": 2.0, "region": "within"},
        ),
        Sample(
            "within a volume",
            shape=(1, 2, 4, 3, 5),
            params={"size": 3, "alpha": 2.0, "region": "within", "alpha_scaling": "sum", "beta": 0.5},
        ),
    )
    error_samples = (
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
        ErrorSample("no window", {"size": 0}, None, "size"),
        ErrorSample("alpha below 0", {"alpha": -1.0}, None, "alpha"),
        ErrorSample("k below 0", {"k": -1.0}, None, "k"),
        ErrorSample("within nothing", {"region": "within"}, (4, 3), "spatial"),
    )
    benchmarks = (
        Sample("AlexNet, after conv1", shape=(32, 96, 55, 55), params={"k": 2.0}),
        Sample("AlexNet, after conv2", shape=(32, 256, 27, 27), params={"k": 2.0}),
    )

    def check(self):
        if isinstance(self.size, bool) or self.size < 1:
            raise ParameterError("size", "a whole number, at least 1", self.size)
        if not 0 <= self.alpha < math.inf:
            raise ParameterError("alpha", "a number of at least 0", self.alpha)
        if not 0 <= self.k < math.inf:
            raise ParameterError("k", "a number of at least 0", self.k)
        if not math.isfinite(self.beta):
            raise ParameterError("beta", "a finite number", self.beta)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"{self.name}: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        if self.region == "within" and not 3 <= len(x.shape) <= 5:
            raise ShapeError(
                f"{self.name}: region=within needs 1 to 3 spatial dimensions, (N, C, *spatial), got {x.shape}"
            )
        scratch = max(
            math.prod(self._geometry(x.shape, format).scratch)
            for format in ("channels_first", "channels_last")
        )
        taps = self.size ** (len(x.shape) - 2 if self.region == "within" else 1)
        workspace = {"scratch": Array((scratch,)), "flags": Array((TASKS,), "uint8")}
        if self.region == "within":
            workspace["u"] = Array((x.size,))
        return Plan(
            y=x.shape,
            workspace=workspace,
            flops=(taps + 8) * x.size,
        )

    def forward_cpu(self, t):
        if not t.x.size:
            return
        g = self._bound(t)
        scratch, flags = t.scratch[: math.prod(g.scratch)].reshape(g.scratch), t.flags[: g.scratch[0]]
        numbers = (self._scale(t), self.k, self.beta)
        checked = (*numbers, self._most(t))
        constants = {"THREE_QUARTERS": self.beta == 0.75}
        x, y = t.x.reshape(g.rows), t.y.reshape(g.rows)
        if g.kind == "ring":
            forward = forward_ring.with_constants(**constants)
            forward[t](x, y, scratch, flags, g.tile, g.before[2], self.size, *checked)
        elif g.kind == "row":
            forward = forward_row.with_constants(**constants)
            forward[t](x, y, scratch, flags, g.tile, g.before[2], self.size, *checked)
        else:
            forward = forward_map.with_constants(**constants)
            forward[t](x, y, scratch, flags, g.box[4], g.before, g.window, *checked)
        if flags.any():
            forward = forward_wide.with_constants(**constants)
            forward[t](t.x.reshape(g.box), t.y.reshape(g.box), g.before, g.window, *numbers)

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._bound(t)
        scratch, flags = t.scratch[: math.prod(g.scratch)].reshape(g.scratch), t.flags[: g.scratch[0]]
        numbers = (self._scale(t), self.k, self.beta)
        checked = (*numbers, self._most(t))
        constants = {"THREE_QUARTERS": self.beta == 0.75}
        x, dy, dx = t.x.reshape(g.rows), t.dy.reshape(g.rows), t.dx.reshape(g.rows)
        if g.kind == "ring":
            backward = backward_ring.with_constants(**constants)
            backward[t](x, dy, dx, scratch, flags, g.tile, g.before[2], self.size, *checked)
        elif g.kind == "row":
            backward = backward_row.with_constants(**constants)
            backward[t](x, dy, dx, scratch, flags, g.tile, g.before[2], self.size, *checked)
        else:
            u, apart = t.u.reshape(g.rows), g.box[4]
            shares = shares_map.with_constants(**constants)
            shares[t](x, dy, dx, u, scratch, flags, apart, g.before, g.window, *checked)
            gather_map[t](x, u, dx, scratch, apart, g.before, g.window, numbers[0], self.beta)
        if flags.any():
            backward = backward_wide.with_constants(**constants)
            arrays = (t.x.reshape(g.box), t.dy.reshape(g.box), t.dx.reshape(g.box))
            backward[t](*arrays, g.before, g.window, *numbers)

    def forward_cuda(self, t):
        if not t.x.size:
            return
        g = self._bound(t)
        x, y, numbers = t.x.reshape(-1), t.y.reshape(-1), (self._scale(t), self.k, self.beta)
        local_response_cuda.forward(t, g, x, y, *numbers)

    def backward_cuda(self, t):
        if t.dx is None or not t.dx.size:
            return
        g, numbers = self._bound(t), (self._scale(t), self.k, self.beta)
        local_response_cuda.backward(t, g, *(a.reshape(-1) for a in (t.x, t.dy, t.dx)), *numbers)

    def _scale(self, t):
        """a of the formulas: what the sum of squares is multiplied by."""
        if self.alpha_scaling == "sum":
            return float(self.alpha)
        return self.alpha / self.size ** (t.x.ndim - 2 if self.region == "within" else 1)

    def _most(self, t):
        """The sum of squares up to which every s lies between LEAST and MOST."""
        if self.k < LEAST:
            return -1.0
        return min((MOST - self.k) / max(self._scale(t), 1e-25), 1e35)

    def _bound(self, t):
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            shape = t.x.shape
            if t.format == "channels_last" and len(shape) > 2:
                shape = (shape[0], shape[-1], *shape[1:-1])
            found = t.geometry = self._geometry(shape, t.format)
        return found

    def _geometry(self, shape, format):
        return Geometry(self.size, self.region, shape, format)

    def reference(self, x, **arrays):
        """Element by element, each window a slice."""
        x = np.asarray(x, np.float64)
        axes = (1,) if self.region == "across" else tuple(range(2, x.ndim))
        a = self.alpha if self.alpha_scaling == "sum" else self.alpha / self.size ** len(axes)
        y = np.empty_like(x)
        for at in np.ndindex(*(x.shape[axis] for axis in axes)):
            window, place = [slice(None)] * x.ndim, [slice(None)] * x.ndim
            for axis, i in zip(axes, at, strict=True):
                window[axis] = slice(max(0, i - self.size // 2), i + (self.size - 1) // 2 + 1)
                place[axis] = slice(i, i + 1)
            energy = (x[tuple(window)] ** 2).sum(axis=axes, keepdims=True)
            y[tuple(place)] = x[tuple(place)] / (self.k + a * energy) ** self.beta
        return y

    def in_torch(self, torch, x, *, training, **_):
        scale = self.size if self.alpha_scaling == "sum" else 1
        if self.region == "across":
            # torch takes three axes or more
            y = x if x.ndim > 2 else x.unsqueeze(-1)
            y = torch.nn.functional.local_response_norm(y, self.size, self.alpha * scale, self.beta, self.k)
            return y if x.ndim > 2 else y.squeeze(-1)
        rank = x.ndim - 2
        pad = (self.size // 2, (self.size - 1) // 2) * rank
        pool = getattr(torch.nn.functional, f"avg_pool{rank}d")
        energy = pool(torch.nn.functional.pad(x * x, pad), self.size, 1)
        return x / (self.k + self.alpha * scale**rank * energy) ** self.beta
