"""@pooling: a layer that reduces windows sliding over the map, from scalar functions.

    @normcore.pooling(source="Sermanet, Chintala and LeCun 2012, arXiv:1204.3968")
    class plain_lp_pool:
        '''(sum of |x|^p over the window)^(1/p).'''
        p: float = 2.0

        def powers(x, p):
            return x * x if p == 2.0 else abs(x) ** p
        def finish(powers, p):
            root = math.sqrt(powers) if p == 2.0 else powers ** (1.0 / p)
            return root if powers > 0.0 else 0.0 * powers

Every function but `finish` is a sum of its values over the window's elements; `finish` makes the output of the sums and
of `count`, how many elements of the window lie inside the input (padding counts nowhere). Arguments go by name: x, sums,
count, fields. So averages, norms, log-sum-exps, softmax-weighted means and standard deviations are a few lines each.
The gradient is derived (normcore/derivation), or a function f_by_a of the class is the slope of f by a; a finish that
has no slope somewhere (a root at 0) says so by a condition.

The engine adds the fields kernel_size, stride (default: kernel_size), padding (a number, one for each dimension,
[before, after] pairs or "same") and ceil_mode before the class's own, which need defaults.
Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with `out` of normcore.shapes.windows.
Sums run in the kernel's own precision, in the order of the window's elements.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from normcore.errors import PluginError, ShapeError
from normcore.op import Array, Op, Plan, Tensor
from normcore.shapes import ONE, Window, check_padding, check_sizes, windows
from normcore.templates.declaration import (
    check_arguments,
    finite,
    is_dear,
    make,
    numbers,
    scalars_of,
)
from normcore.templates.pooling_kernels import TASKS, DeclaredPooling, covering, pooling_kernels


class Pooling(Op):
    """Base of the ops that @pooling makes."""

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int | tuple[int, int], ...] = 0
    ceil_mode: bool = False

    formats: ClassVar[tuple[str, ...]] = ("channels_last",)  # conversions included faster than planes
    backward_needs: ClassVar[tuple[str, ...]] = ("x",)
    declared: ClassVar[DeclaredPooling]
    definition: ClassVar[Any]

    def check(self) -> None:
        check_sizes("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)
        own = vars(self.definition).get("check")
        if own is not None:
            own(self)

    def windows(self, spatial: tuple[int, ...]) -> tuple[Window, ...]:
        stride = self.kernel_size if self.stride is None else self.stride
        sliding = (self.kernel_size, stride, self.padding, 1, self.ceil_mode)
        return windows(spatial, *sliding, op=self.name, half_padding=True)

    def plan(self, x: Tensor) -> Plan:  # type: ignore[override]
        if not 3 <= len(x.shape) <= 5:
            raise ShapeError(
                f"{self.name}: expected (N, C, *spatial) with 1 to 3 spatial dimensions, got {x.shape}"
            )
        found = self.windows(x.shape[2:])
        shape = (*x.shape[:2], *(w.out for w in found))
        three = (ONE,) * (3 - len(found)) + found
        kernel, stride = [w.kernel for w in three], [w.stride for w in three]
        most = max(math.prod(kernel), *covering(kernel, stride))
        sums = len(self.declared.sums)
        each = Array((sums, math.prod(shape)))
        scratch = {"shares": each, "places": Array((TASKS, most), "int64")}
        if self._ahead(kernel, stride):
            scratch["values"] = Array((sums, x.size))
        flops = 2 * math.prod(shape) * math.prod(kernel)
        return Plan(y=shape, saved={"sums": each}, workspace=scratch, flops=flops)

    def _ahead(self, kernel: Sequence[int], stride: Sequence[int]) -> bool:
        """Whether the functions are computed once an element and not once a window that holds it."""
        overlap = math.prod(kernel) > math.prod(stride)
        return overlap and any(is_dear(s, self.hyperparameters()) for s in self.declared.sums)

    def _bound(self, t: Any) -> tuple[Any, tuple[Any, ...]]:
        """The kernels and what they take last: the geometry, the numbers. They depend on the layer's shape alone."""
        found: tuple[Any, tuple[Any, ...]] | None = vars(t).get("bound_windows")
        if found is None:
            found = t.bound_windows = self._find(t.x.shape[1:-1])
        return found

    def _find(self, spatial: tuple[int, ...]) -> tuple[Any, tuple[Any, ...]]:
        three = (ONE,) * (3 - len(spatial)) + self.windows(spatial)
        size, out, kernel, stride, before = (
            tuple(getattr(w, key) for w in three) for key in ("size", "out", "kernel", "stride", "before")
        )
        given = (size, out, kernel, stride, before, *numbers(self, self.declared.parameters))
        return pooling_kernels(self.declared, kernel, stride, self._ahead(kernel, stride)), given

    def _rows(self, t: Any, *arrays: Any) -> list[Any]:
        return [a.reshape(-1, a.shape[-1]) for a in arrays]

    def _windows_of(self, t: Any, *arrays: Any) -> list[Any]:
        return [a.reshape(len(self.declared.sums), -1, t.x.shape[-1]) for a in arrays]

    def forward_cpu(self, t: Any) -> None:
        if t.y.size:
            kernels, given = self._bound(t)
            values = [t.values] if "values" in vars(t) else []
            arrays = (*self._rows(t, t.x, t.y), *self._windows_of(t, t.sums, *values))
            kernels.forward[t](*arrays, t.places, t.x.shape[0], *given)

    def backward_cpu(self, t: Any) -> None:
        if t.dx is not None and t.dx.size:
            kernels, given = self._bound(t)
            arrays = (*self._rows(t, t.x, t.dy, t.dx), *self._windows_of(t, t.sums, t.shares))
            kernels.backward[t](*arrays, t.places, t.x.shape[0], *given)

    def forward_cuda(self, t: Any) -> None:
        if t.y.size:
            kernels, given = self._bound(t)
            kernels.forward_cuda[t, t.y.size](*self._rows(t, t.x, t.y), *self._windows_of(t, t.sums), *given)

    def backward_cuda(self, t: Any) -> None:
        if t.dx is not None and t.dx.size:
            kernels, given = self._bound(t)
            (x, dy, dx), (sums, shares) = (
                self._rows(t, t.x, t.dy, t.dx),
                self._windows_of(t, t.sums, t.shares),
            )
            kernels.shares_cuda[t, t.y.size](dy, sums, shares, *given)
            kernels.backward_cuda[t, t.dx.size](x, dx, shares, *given)

    def reference(self, x: Any, **arrays: Any) -> Any:
        """The scalar functions as plain Python, window by window."""
        x = np.asarray(x, np.float64)
        axes = self.windows(x.shape[2:])
        y = np.empty((*x.shape[:2], *(w.out for w in axes)))
        fields = self.hyperparameters()
        for o in np.ndindex(*y.shape[2:]):
            lows = [i * w.stride - w.before for i, w in zip(o, axes, strict=True)]
            inside = [range(max(0, s), min(w.size, s + w.kernel)) for s, w in zip(lows, axes, strict=True)]
            part = x[(..., *np.ix_(*inside))].reshape(*x.shape[:2], -1)
            known: dict[str, Any] = {**fields, "count": part.shape[2]}
            for scalar in self.declared.sums:
                values = np.vectorize(finite(scalar), otypes=[float])
                found = values(*((part if a == "x" else fields[a]) for a in scalar.arguments))
                known[scalar.name] = np.broadcast_to(found, part.shape).sum(axis=2)
            finish = self.declared.finish
            y[(..., *o)] = np.vectorize(finite(finish), otypes=[float])(*(known[a] for a in finish.arguments))
        return y


def pooling(
    definition: type | None = None,
    *,
    name: str = "",
    aliases: tuple[str, ...] = (),
    source: str = "",
    **attributes: Any,
) -> Any:
    """Make a pooling op of a class of scalar functions; see the module's docstring.

    Raises PluginError for a function that takes what there is not, for a missing `finish` and for no sum.
    """
    if definition is None:
        return lambda d: pooling(d, name=name, aliases=aliases, source=source, **attributes)
    op = name or definition.__name__
    scalars = scalars_of(definition, op)
    finish = scalars.pop("finish", None)
    if finish is None or not scalars:
        raise PluginError(
            f"{op}: a pooling needs functions of x, summed over each window, and finish(sums, count, fields)"
        )
    fields = list(definition.__annotations__)
    for scalar in scalars.values():
        check_arguments(op, scalar, "x", fields)
    check_arguments(op, finish, next(iter(scalars)), [*scalars, "count", *fields])
    used = {a for scalar in (*scalars.values(), finish) for a in scalar.arguments}
    parameters = tuple(f for f in fields if f in used)
    declared = DeclaredPooling(op, tuple(scalars.values()), finish, parameters)
    attributes = {**attributes, "declared": declared}
    if "check" in vars(definition):
        attributes["check"] = Pooling.check
    keywords: dict[str, Any] = {"aliases": aliases, "source": source}
    return make(definition, op, Pooling, attributes, **keywords)
