"""@normalization: a layer that normalizes by statistics over a choice of axes, from scalar functions.

    @normcore.normalization(over="groups", source="Wu and He 2018, arXiv:1803.08494")
    class plain_group_norm:
        '''(x - mean) / sqrt(variance + eps) over groups of channels, scaled and shifted.'''
        num_groups: int = 32
        eps: float = 1e-5

        def mean(x):
            return x
        def variance(x, mean):
            return (x - mean) ** 2
        def normalize(x, mean, variance, eps):
            return (x - mean) * (1.0 / math.sqrt(variance + eps))

Every function but `normalize` is a statistic: the mean of its values over the elements that share it, in the order
written; a later one may take earlier ones. Arguments go by name: x, statistics, fields. The gradient goes through all
statistics by derivatives that the engine derives (normcore/derivation), or that stand in the class: a function f_by_a
is the slope of f by its argument a and takes what f takes, as variance_by_mean(x, mean).

over   the elements of x (N, C, *spatial) that share statistics
    "groups"   the channels of a group and all positions of a sample; the field num_groups says how many groups
    "sample"   all of a sample (one group)
    "space"    the positions of one channel of a sample (C groups)
    "channels" the channels of one position of a sample
    "batch"    one channel in all samples: the batch at hand, in inference too
    "everything"  the whole batch at hand
affine  y = gamma normalize(...) + beta with learned gamma and beta (C,), the default; False: neither

Numerics: sums run in blocks of 4096 values (of 128 where lines of memory are summed) in the kernel's precision, blocks
in float64. A statistic is rounded to that precision: at a mean of 1e6, float32 keeps a spread of 1 to about 3 %. Where
that matters write kernels by hand, as group_norm's are.
"""

import math
from typing import Any, ClassVar

import numpy as np

from normcore.errors import ParameterError, PluginError, ShapeError
from normcore.op import Array, Op, Plan, Tensor
from normcore.templates.declaration import check_arguments, finite, make, numbers, scalars_of
from normcore.templates.normalization_columns_cuda import column_kernels
from normcore.templates.normalization_lines import SLOTS, line_kernels
from normcore.templates.normalization_planes import plane_kernels
from normcore.templates.normalization_planes_cuda import THREADS, plane_cuda_kernels
from normcore.templates.normalization_writer import Declared

OVER = ("groups", "sample", "space", "channels", "batch", "everything")
COLUMNS = 512  # elements of a line of a channel that go together, so that their lines stay in the cache


class Normalization(Op):
    """Base of the ops that @normalization makes."""

    formats: ClassVar[tuple[str, ...]] = ("channels_first", "channels_last")
    cuda_formats: ClassVar[tuple[str, ...]] = ("channels_first",)
    backward_needs: ClassVar[tuple[str, ...]] = ("x",)
    epilogue: ClassVar[str | None] = "input"
    declared: ClassVar[Declared]
    definition: ClassVar[Any]
    over: ClassVar[str]

    def check(self) -> None:
        if self.over == "groups" and not self._groups(1) >= 1:
            raise ParameterError("num_groups", "a whole number of at least 1", self._groups(1))
        own = vars(self.definition).get("check")
        if own is not None:
            own(self)

    def _groups(self, channels: int) -> int:
        return {"groups": getattr(self, "num_groups", 1), "space": channels}.get(self.over, 1)

    def plan(self, x: Tensor) -> Plan:  # type: ignore[override]
        if len(x.shape) < 2 or 0 in x.shape[1:]:
            raise ShapeError(
                f"{self.name}: expected (N, C) or (N, C, *spatial) with elements in a sample, got {x.shape}"
            )
        batch, channels = x.shape[:2]
        groups = self._groups(channels)
        if channels % groups:
            raise ShapeError(
                f"{self.name}: {channels} channels cannot be split evenly into {groups} groups; choose num_groups "
                f"among the divisors of {channels}"
            )
        positions = math.prod(x.shape[2:])
        rows = {"batch": channels, "everything": 1, "channels": batch * positions}.get(
            self.over, batch * groups
        )
        # By blocks of columns where lines are channels; see _lines.
        parts = batch * channels * (-(-positions // COLUMNS) if self.over == "channels" else 1)
        affine = {"gamma": Array((channels,), init="ones"), "beta": Array((channels,))}
        statistics = len(self.declared.statistics)
        by_line = self.over == "channels" and len(x.shape) > 2
        each, sums = line_kernels(self.declared, by_line).scratch
        length = max(channels, min(positions, COLUMNS) if self.over == "channels" else 0)
        return Plan(
            y=x.shape,
            parameters=affine if self.learnable else {},
            saved={"stats": Array((rows, statistics))},
            workspace={
                "part": Array((parts, 2), "float64"),
                "lines": Array((SLOTS, each, length)),
                "wides": Array((SLOTS, sums, length), "float64"),
            },
            flops=8 * x.size,
        )

    def _planes(self, t: Any, *arrays: Any) -> list[Any]:
        """Channels first, arrays as planes of memory; see normalization_writer.py."""
        batch, channels = t.x.shape[:2]
        groups = self._groups(channels)
        outer = {"batch": (batch, channels), "everything": (1, batch * channels)}.get(
            self.over, (batch * groups, channels // groups)
        )
        return [a.reshape(*outer, math.prod(t.x.shape[2:])) for a in arrays]

    def _lines(self, t: Any, *arrays: Any) -> tuple[bool, list[Any], tuple[int, int]]:
        """Whether lines are channels, arrays as lines (O, P, L), and how many neighbours and columns go together."""
        if self.over == "channels" and t.x.ndim > 2:
            return True, _columns(*arrays), (1, COLUMNS)
        channels = t.x.shape[-1]
        outer = 1 if self.over in ("batch", "everything") else t.x.shape[0]
        whole = self.over in ("channels", "sample", "everything")
        width = channels if whole else 1 if self.over == "batch" else channels // self._groups(channels)
        step = channels if outer >= SLOTS // 2 else -(-max(16, -(-channels // 8)) // width) * width
        return False, [a.reshape(outer, -1, channels) for a in arrays], (width, step)

    def _in_planes(self, t: Any) -> bool:
        return t.format == "channels_first" and t.x.ndim > 2 and self.over != "channels"

    def _parameters(self, t: Any) -> list[Any]:
        return [vars(t).get(name, t.stats[:0, 0]) for name in ("gamma", "beta")]

    def _numbers(self) -> list[float]:
        return numbers(self, self.declared.parameters)

    def _check_batch(self, t: Any) -> None:
        if self.needs_batch and t.training:
            raise ShapeError(f"{self.name}: training needs the statistics of a batch, got one of no samples")

    def forward_cpu(self, t: Any) -> None:
        if not t.x.size:
            self._check_batch(t)
            return
        last = (*self._parameters(t), t.stats)
        if self._in_planes(t):
            x, y = self._planes(t, t.x, t.y)
            kernel = plane_kernels(self.declared).forward
            kernel[t](x, x.reshape(x.shape[0], -1), y, *last, *self._numbers(), t.e)
        else:
            by_line, (x, y), cut = self._lines(t, t.x, t.y)
            kernel = line_kernels(self.declared, by_line).forward
            kernel[t](x, y, *last, t.lines, t.wides, *cut, *self._numbers(), t.e)

    def backward_cpu(self, t: Any) -> None:
        if not t.x.size:
            self._no_gradients(t)
            return
        wanted = t.dx is not None
        arrays = (t.x, t.dy, t.dx if wanted else t.dy)
        gradients = [vars(t).get(name, t.stats[:0, 0]) for name in ("dgamma", "dbeta")]
        last = (*self._parameters(t), *gradients, t.stats)
        if self._in_planes(t):
            kernel = plane_kernels(self.declared).backward
            kernel[t](*self._planes(t, *arrays), *last, t.part, wanted, *self._numbers(), t.e)
        else:
            by_line, lines, cut = self._lines(t, *arrays)
            rows = lines[0].shape[0] * lines[0].shape[1] * -(-lines[0].shape[2] // COLUMNS)
            part = t.part[: rows if by_line else lines[0].shape[0] * lines[0].shape[2]]
            kernel = line_kernels(self.declared, by_line).backward
            kernel[t](*lines, *last, part, wanted, t.lines, t.wides, *cut, *self._numbers(), t.e)

    def _no_gradients(self, t: Any) -> None:
        for name in self.learnable:
            getattr(t, "d" + name).fill(0)

    def forward_cuda(self, t: Any) -> None:
        if not t.x.size:
            self._check_batch(t)
            return
        last = (*self._parameters(t), t.stats, *self._numbers(), t.e)
        if self.over == "channels":
            column_kernels(self.declared).forward[t, t.stats.shape[0]](*_columns(t.x, t.y), *last)
        else:
            kernel = plane_cuda_kernels(self.declared).forward
            kernel[t, (t.stats.shape[0], THREADS)](*self._planes(t, t.x, t.y), *last)

    def backward_cuda(self, t: Any) -> None:
        if not t.x.size:
            self._no_gradients(t)
            return
        wanted = t.dx is not None
        arrays = (t.x, t.dy, t.dx if wanted else t.dy)
        given, numbers = (*self._parameters(t), t.stats), (*self._numbers(), t.e)
        if self.over == "channels":
            x, dy, dx = _columns(*arrays)
            kernels = column_kernels(self.declared)
            if wanted:
                kernels.backward[t, t.stats.shape[0]](x, dy, dx, *given, *numbers)
            if self.learnable:
                launch = kernels.parameters[t, (t.gamma.size, THREADS)]
                launch(x, dy, *given, t.dgamma, t.dbeta, *numbers)
            return
        generated = plane_cuda_kernels(self.declared)
        launch = generated.backward[t, (t.stats.shape[0], THREADS)]
        launch(*self._planes(t, *arrays), *given, t.part, wanted, *numbers)
        if self.learnable:
            generated.parameters[t, t.gamma.size](t.part, t.dgamma, t.dbeta)

    def reference(self, x: Any, gamma: Any = None, beta: Any = None, **arrays: Any) -> Any:
        """The scalar functions as plain Python, element by element."""
        x = np.asarray(x, np.float64)
        groups = self._groups(x.shape[1])
        values, axes = {
            "batch": (x.reshape(*x.shape[:2], -1), (0, 2)),
            "channels": (x, (1,)),
            "everything": (x.reshape(1, -1), (1,)),
        }.get(self.over, (x.reshape(x.shape[0], groups, -1), (2,)))
        known: dict[str, Any] = {"x": values, **self.hyperparameters()}
        for scalar in (*self.declared.statistics, self.declared.normalize):
            found = np.vectorize(finite(scalar), otypes=[float])(*(known[a] for a in scalar.arguments))
            if scalar is self.declared.normalize:
                values = np.broadcast_to(found, values.shape)
            else:
                known[scalar.name] = found.mean(axis=axes, keepdims=True)
        y = values.reshape(x.shape)
        if gamma is not None:
            wide = (1, -1) + (1,) * (x.ndim - 2)
            y = y * np.reshape(gamma, wide) + np.reshape(beta, wide)
        return y


def _columns(*arrays: Any) -> list[Any]:
    """Channels first: (N, C, positions)."""
    return [a.reshape(*a.shape[:2], math.prod(a.shape[2:])) for a in arrays]


def normalization(
    definition: type | None = None,
    *,
    over: str = "",
    affine: bool = True,
    name: str = "",
    aliases: tuple[str, ...] = (),
    source: str = "",
    **attributes: Any,
) -> Any:
    """Make a normalization op of a class of scalar functions; see the module's docstring.

    Raises PluginError for a function that takes what there is not, or for a missing `normalize`.
    """
    if definition is None:
        return lambda d: normalization(
            d, over=over, affine=affine, name=name, aliases=aliases, source=source, **attributes
        )
    op = name or definition.__name__
    if over not in OVER:
        raise PluginError(f"{op}: over must be one of {', '.join(OVER)}, got {over!r}")
    scalars = scalars_of(definition, op)
    if "normalize" not in scalars:
        raise PluginError(f"{op}: a normalization needs a function normalize(x, its statistics and fields)")
    fields = list(definition.__annotations__)
    if over == "groups" and "num_groups" not in fields:
        raise PluginError(f'{op}: over="groups" needs a field num_groups')
    normalize = scalars.pop("normalize")
    known: list[str] = []
    for scalar in scalars.values():
        check_arguments(op, scalar, "x", [*known, *fields])
        known.append(scalar.name)
    check_arguments(op, normalize, "x", [*known, *fields])
    used = {a for scalar in (*scalars.values(), normalize) for a in scalar.arguments}
    parameters = tuple(f for f in fields if f in used)
    declared = Declared(op, tuple(scalars.values()), normalize, parameters, over == "batch")
    attributes = {**attributes, "declared": declared, "over": over}
    if over in ("batch", "everything"):
        attributes.setdefault("needs_batch", True)
    if over == "channels":  # lines are channels
        attributes.setdefault("formats", ("channels_first",))
    if "check" in vars(definition):
        attributes["check"] = Normalization.check
    learnable = ("gamma", "beta") if affine else ()
    keywords: dict[str, Any] = {"aliases": aliases, "source": source, "learnable": learnable}
    return make(definition, op, Normalization, attributes, **keywords)
