"""What group_norm, instance_norm and mean_variance_norm share: groups of channels, and how their kernels are called.

An op says by groups_of(channels) into how many groups the channels fall and by `per_sample` whether each sample has
statistics of its own. Row n * groups + g (or g, where samples share) of the saved statistics is a group's.
"""

import math

from normcore import Array, Op, ParameterError, Plan, ShapeError
from normcore_normalization import group_cuda, group_lines, group_planes
from normcore_normalization.channel_shapes import WIDTH

CHUNK = 256  # positions, channels last: summed in the kernel's own precision, with lines that fit the cache
FEW = 8  # groups or samples; fewer are cut further, so that all threads have work


class GroupedNormalization(Op):
    """Base of the norms over groups of channels and space."""

    stores_16_bits = True
    per_sample = True
    affine = False

    def groups_of(self, channels):
        raise NotImplementedError

    def check(self):
        if not self.eps >= 0:
            raise ParameterError("eps", "a number of at least 0", self.eps)

    def plan_groups(self, x, *, state=None, bend=False):
        if len(x.shape) < 2:
            raise ShapeError(f"{self.name}: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        batch, channels = x.shape[:2]
        positions = math.prod(x.shape[2:])
        if channels * positions == 0:
            raise ShapeError(f"{self.name}: expected at least one element a sample, got {x.shape}")
        rows = self.groups_of(channels) * (batch if self.per_sample else 1)
        chunks = -(-positions // CHUNK)
        per_row = Array((rows,))
        per_channel = Array((channels,))
        saved = {"shift": per_row, "rest": per_row, "scale": per_row}
        if bend:
            saved["bend"] = per_row
        return Plan(
            y=x.shape,
            parameters={"gamma": Array((channels,), init="ones"), "beta": per_channel} if self.affine else {},
            state=state or {},
            saved=saved,
            workspace={
                "part": Array((batch, chunks, channels, 2), "float64"),
                "lines": Array(
                    (batch, chunks, 7, _line(channels, positions)) if positions > 1 else (0, 0, 0, 0)
                ),
                "means": Array((rows, 2)),
            },
            flops=8 * x.size,
        )

    def _eps(self):
        return float(self.eps)

    def uses_running(self, t):
        """Whether this pass normalizes with running statistics; only some ops have them."""
        return False

    def _bind(self, t, *arrays):
        """Geometry, the arrays as (N, C, S) or (N, S, C), and part: (N, K, C, 2), on the CPU (N, K, 2, C)."""
        last = t.format == "channels_last" and t.x.ndim > 2
        channels = t.x.shape[-1] if last else t.x.shape[1]
        positions = t.part.shape[1] if t.x.size == 0 else t.x.size // (t.x.shape[0] * channels)
        shape = (t.x.shape[0], positions, channels) if last else (t.x.shape[0], channels, positions)
        chunks = t.part.shape[1] if last else 1
        pair = (2, channels) if t.device.name == "cpu" else (channels, 2)
        part = t.part.reshape(-1)[: shape[0] * chunks * channels * 2].reshape(-1, chunks, *pair)
        return last, channels, part, [None if a is None else a.reshape(shape) for a in arrays]

    def _arrays(self, t):
        """gamma, beta, dgamma, dbeta and bend, empty where the op has none."""
        names, none = vars(t), t.shift[:0]
        return [names.get(n, none) for n in ("gamma", "beta", "dgamma", "dbeta", "bend")]

    def forward_cpu(self, t):
        if t.x.size == 0:
            return
        last, channels, part, (x, y) = self._bind(t, t.x, t.y)
        gamma, beta, _, _, bend = self._arrays(t)
        groups, eps, own = self.groups_of(channels), self._eps(), self.per_sample
        saved = (t.shift, t.rest, t.scale)
        running = self.uses_running(t)
        if last:
            x, y = _rows(t, x, y)
            if own and not running and x.shape[0] >= FEW:
                group_lines.forward_lines[t](x, y, gamma, beta, part, t.lines, groups, eps, *saved, bend, t.e)
                return
            if not running:
                group_lines.statistics_lines[t](x, part, t.lines, own, groups, eps, *saved, bend)
            group_lines.normalize_lines[t](x, y, channels, gamma, beta, t.lines, own, groups, *saved, t.e)
            return
        if own and not running and (t.shift.size >= FEW or x.size < 65536):
            rows, width = t.shift.size, channels // groups
            shape = (rows, width, x.shape[2])
            flat = x.reshape(rows, width * x.shape[2])
            group_planes.forward_groups[t](
                x.reshape(shape), flat, y.reshape(shape), gamma, beta, *saved, bend, groups, eps, t.e
            )
            return
        if not running:
            floor = eps * eps if bend.size else eps
            group_planes.plane_statistics[t](x, part, floor)
            group_planes.merge_groups[t](part, x.shape[2], own, groups, eps, *saved, bend)
        group_planes.normalize_planes[t](x, y, gamma, beta, *saved, own, groups, t.e)

    def backward_cpu(self, t):
        gamma, beta, dgamma, dbeta, bend = self._arrays(t)
        if t.x.size == 0:
            dgamma.fill(0)
            dbeta.fill(0)
            return
        last, channels, part, (x, dy, dx) = self._bind(t, t.x, t.dy, t.dx)
        wanted = dx is not None
        if last:
            x, dy, dx = _rows(t, x, dy, dx)
        module, scratch = (
            (group_lines.backward_lines, t.lines) if last else (group_planes.backward_planes, t.means)
        )
        module[t](
            x,
            dy,
            dx if wanted else dy,
            gamma,
            beta,
            dgamma,
            dbeta,
            t.shift,
            t.rest,
            t.scale,
            bend,
            part,
            scratch,
            self.per_sample,
            self.groups_of(channels),
            self.uses_running(t),
            wanted,
            t.e,
        )

    def forward_cuda(self, t):
        if t.x.size == 0:
            return
        last, channels, part, (x, y) = self._bind(t, t.x, t.y)
        gamma, beta, _, _, bend = self._arrays(t)
        groups, own = self.groups_of(channels), self.per_sample
        group_cuda.forward(
            t, last, x, y, gamma, beta, bend, part, own, groups, self._eps(), self.uses_running(t)
        )

    def backward_cuda(self, t):
        gamma, beta, dgamma, dbeta, bend = self._arrays(t)
        if t.x.size == 0:
            dgamma.fill(0)
            dbeta.fill(0)
            return
        last, channels, part, (x, dy, dx) = self._bind(t, t.x, t.dy, t.dx)
        parameters = (gamma, beta, dgamma, dbeta)
        groups, own = self.groups_of(channels), self.per_sample
        group_cuda.backward(t, last, x, dy, dx, *parameters, bend, part, own, groups, self.uses_running(t))


def _line(channels, positions):
    """Values of a line: as many positions as make about WIDTH values and divide the map, so that none are left."""
    return channels * max(k for k in range(1, max(1, WIDTH // channels) + 1) if positions % k == 0)


def _rows(t, *arrays):
    """Channels-last arrays as (N, R, W), rows of lines."""
    width = t.lines.shape[3]
    return [None if a is None else a.reshape(a.shape[0], -1, width) for a in arrays]
