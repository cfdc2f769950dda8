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
statistics by derivatives that the engine derives (normcore/derivation).

over   the elements of x (N, C, *spatial) that share statistics
    "groups"   the channels of a group and all positions of a sample; the field num_groups says how many groups
    "sample"   all of a sample (one group)
    "space"    the positions of one channel of a sample (C groups)
    "batch"    one channel in all samples: the batch at hand, in inference too
affine  y = gamma normalize(...) + beta with learned gamma and beta (C,), the default; False: neither

Numerics: sums run in blocks of 4096 in the kernel's precision, blocks in float64. A statistic is rounded to that
precision: at a mean of 1e6, float32 keeps a spread of 1 to about 3 %. Where that matters write kernels by hand, as
group_norm's are.
"""

import math
from typing import Any, ClassVar

import numpy as np

from normcore.errors import ParameterError, PluginError, ShapeError
from normcore.op import Array, Op, Plan, Tensor
from normcore.templates.declaration import Scalar, check_arguments, finite, functions_of, make, numbers
from normcore.templates.normalization_kernels import THREADS, Declared, normalization_kernels

OVER = ("groups", "sample", "space", "batch")


class Normalization(Op):
    """Base of the ops that @normalization makes."""

    formats: ClassVar[tuple[str, ...]] = ("channels_first",)
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
        rows, planes = (channels, batch) if self.over == "batch" else (batch * groups, channels // groups)
        affine = {"gamma": Array((channels,), init="ones"), "beta": Array((channels,))}
        return Plan(
            y=x.shape,
            parameters=affine if self.learnable else {},
            saved={"stats": Array((rows, len(self.declared.statistics)))},
            workspace={"part": Array((rows, planes, 2), "float64")},
            flops=8 * x.size,
        )

    def _bind(self, t: Any, *arrays: Any) -> tuple[int, list[Any]]:
        """How many groups, and arrays as planes."""
        groups = self._groups(t.x.shape[1])
        outer = (t.x.shape[0], t.x.shape[1])
        if self.over != "batch":
            outer = (t.x.shape[0] * groups, t.x.shape[1] // groups)
        shape = (*outer, math.prod(t.x.shape[2:]))
        return groups, [a.reshape(shape) for a in arrays]

    def _parameters(self, t: Any) -> list[Any]:
        return [vars(t).get(name, t.stats[:0, 0]) for name in ("gamma", "beta")]

    def _numbers(self) -> list[float]:
        return numbers(self, self.declared.parameters)

    def forward_cpu(self, t: Any) -> None:
        if not t.x.size:
            return
        groups, (x, y) = self._bind(t, t.x, t.y)
        flat = x.reshape(x.shape[0], -1)
        kernel = normalization_kernels(self.declared).forward
        kernel[t](x, flat, y, *self._parameters(t), t.stats, groups, *self._numbers(), t.e)

    def forward_cuda(self, t: Any) -> None:
        if not t.x.size:
            return
        groups, (x, y) = self._bind(t, t.x, t.y)
        kernel = normalization_kernels(self.declared).forward_cuda
        extent = (t.stats.shape[0], THREADS)
        kernel[t, extent](x, y, *self._parameters(t), t.stats, groups, *self._numbers(), t.e)

    def _backward(self, t: Any) -> tuple[int, list[Any], bool] | None:
        """Groups, planes of x, dy and dx, and whether dx is wanted; None for an empty batch."""
        if not t.x.size:
            for name in self.learnable:
                getattr(t, "d" + name).fill(0)
            return None
        wanted = t.dx is not None
        return *self._bind(t, t.x, t.dy, t.dx if wanted else t.dy), wanted

    def backward_cpu(self, t: Any) -> None:
        if found := self._backward(t):
            groups, planes, wanted = found
            gradients = [vars(t).get(name, t.stats[:0, 0]) for name in ("dgamma", "dbeta")]
            kernel = normalization_kernels(self.declared).backward[t]
            given = (*self._parameters(t), *gradients, t.stats, t.part, groups, wanted)
            kernel(*planes, *given, *self._numbers(), t.e)

    def backward_cuda(self, t: Any) -> None:
        if found := self._backward(t):
            groups, planes, wanted = found
            kernels = normalization_kernels(self.declared)
            launch = kernels.backward_cuda[t, (t.stats.shape[0], THREADS)]
            launch(*planes, *self._parameters(t), t.stats, t.part, groups, wanted, *self._numbers(), t.e)
            if self.learnable:
                kernels.parameters_cuda[t, t.gamma.size](t.part, groups, t.dgamma, t.dbeta)

    def reference(self, x: Any, gamma: Any = None, beta: Any = None, **arrays: Any) -> Any:
        """The scalar functions as plain Python, element by element."""
        x = np.asarray(x, np.float64)
        groups = self._groups(x.shape[1])
        batch = self.over == "batch"
        values = x.reshape(x.shape[0], x.shape[1] if batch else groups, -1)
        axes: tuple[int, ...] = (0, 2) if batch else (2,)
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


def normalization(
    definition: type | None = None,
    *,
    over: str,
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
    found = functions_of(definition, op)
    if "normalize" not in found:
        raise PluginError(f"{op}: a normalization needs a function normalize(x, its statistics and fields)")
    fields = list(definition.__annotations__)
    if over == "groups" and "num_groups" not in fields:
        raise PluginError(f'{op}: over="groups" needs a field num_groups')
    scalars = {key: Scalar.of(op, key, python) for key, python in found.items()}
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
    if "check" in vars(definition):
        attributes["check"] = Normalization.check
    learnable = ("gamma", "beta") if affine else ()
    keywords: dict[str, Any] = {"aliases": aliases, "source": source, "learnable": learnable}
    return make(definition, op, Normalization, attributes, **keywords)
