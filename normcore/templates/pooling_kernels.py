"""Kernels of a pooling, written from its scalar functions; channels last: x (positions, C), y (windows, C).

With s_k = sum of f_k(x) over a window and y = finish(s, count):
    dx = sum over k of df_k/dx(x) * sum over the windows that hold x of dy dfinish/ds_k
The windows' factors dy dfinish/ds_k are computed once each, into `shares`. Whole windows are summed in registers, all
their taps in one pass over the channels; windows that the input's ends cut tap by tap, through memory. Functions that
cost more than memory does are computed ahead, once an element, where windows overlap (`ahead`). No scatter: an element
collects from its windows, in their order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from normcore.kernels import CudaKernel, Kernel
from normcore.kernels.function import Function
from normcore.templates.declaration import Scalar, indented, text

TASKS = 64  # into which rows of positions are cut
UNROLLED = 16  # taps that are summed in registers at most


@dataclass(frozen=True, eq=False)
class DeclaredPooling:
    """A pooling's functions. sums: in order; parameters: names of numbers that the functions take."""

    op: str
    sums: tuple[Scalar, ...]
    finish: Scalar
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class PoolingKernels:
    forward: Kernel
    backward: Kernel
    forward_cuda: CudaKernel
    shares_cuda: CudaKernel
    backward_cuda: CudaKernel


def covering(kernel: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """How many windows may hold one element, in ascending order."""
    each = [{max(1, k // s), -(-k // s)} for k, s in zip(kernel, stride, strict=True)]
    return tuple(sorted({a * b * c for a in each[0] for b in each[1] for c in each[2]}))


# The part of a window, or the windows of an element, along dimension k: from lo to hi.
_WINDOW = (
    "lo_{n}, hi_{n} = max(0, {o} * stride[{k}] - before[{k}]), "
    "min(size[{k}], {o} * stride[{k}] - before[{k}] + kernel[{k}])"
)
_HOLDERS = (
    "lo_{n}, hi_{n} = max(0, ({o} + before[{k}] - kernel[{k}] + stride[{k}]) // stride[{k}]), "
    "min(out[{k}], ({o} + before[{k}]) // stride[{k}] + 1)"
)
_GEOMETRY = ["size", "out", "kernel", "stride", "before"]
_ALL = [
    "for d in range(lo_d, hi_d):",
    "    for h in range(lo_h, hi_h):",
    "        for w in range(lo_w, hi_w):",
]


class _Writer:
    def __init__(self, declared: DeclaredPooling):
        self.d = declared
        self.k = range(len(declared.sums))
        self.p = [f"p_{name}" for name in declared.parameters]
        self.texts = {**dict(zip(declared.parameters, self.p, strict=True)), "count": "count"}
        self.texts |= {scalar.name: f"t{k}" for k, scalar in enumerate(declared.sums)}
        self.slopes = [scalar.derivative("x") for scalar in declared.sums]
        self.by = [declared.finish.derivative(scalar.name) for scalar in declared.sums]
        functions = [*declared.sums, declared.finish, *self.slopes, *self.by]
        self.names = {f.function.name: f.function for f in functions if f is not None}
        self.set_parameters = [
            f"{p} = real({name})" for p, name in zip(self.p, declared.parameters, strict=True)
        ]

    def call(self, scalar: Scalar | None, x: str = "x[i]") -> str:
        return "real(0)" if scalar is None else scalar.call({**self.texts, "x": x})

    def helper(self, name: str, arguments: list[str], lines: list[str], over: str) -> Function:
        body = [f"for i in range({over}.size):", *indented(lines)]
        return text(f"{self.d.op}_{name}", [*arguments, *self.p], body, self.names, force=True)

    def total(self, k: int, terms: Sequence[str]) -> str:
        return f"t{k} = {' + '.join(terms)}"

    def window(self, form: str, d: str, h: str, w: str) -> list[str]:
        places = zip("dhw", (d, h, w), range(3), strict=True)
        return [form.format(n=n, o=o, k=k) for n, o, k in places]

    def row(self, target: str, inner: list[str]) -> list[str]:
        """Lines for each row of `target` positions ("out" or "size") of a task."""
        return [
            "tasks = places.shape[0]",
            f"units = batch * {target}[0] * {target}[1]",
            "for task in prange(tasks):",
            "    own = places[task]",
            "    for row in range(units * task // tasks, units * (task + 1) // tasks):",
            f"        a_h = row % {target}[1]",
            f"        a_d = row // {target}[1] % {target}[0]",
            f"        n = row // {target}[1] // {target}[0]",
            f"        for a_w in range({target}[2]):",
            f"            at = row * {target}[2] + a_w",
            *indented(indented(indented(inner))),
        ]

    def gather(self, form: str, source: str) -> list[str]:
        place = f"((n * {source}[0] + d) * {source}[1] + h) * {source}[2] + w"
        return [
            *self.window(form, "a_d", "a_h", "a_w"),
            "terms = 0",
            *_ALL,
            f"            own[terms] = {place}",
            "            terms += 1",
        ]

    # -- CPU --------------------------------------------------------------------------------------------------

    def forward(self, volume: int, ahead: bool) -> Kernel:
        sums = [f"s{k}" for k in self.k]
        finish = f"y[i] = {self.d.finish.call(self.texts)}"
        keep = [f"s{k}[i] = t{k}" for k in self.k]
        given = "".join(", " + p for p in self.p)

        def names(j: int | str = "") -> list[str]:
            """The arguments that tap j's values come in."""
            return [f"v{k}_{j}" for k in self.k] if ahead else [f"x{j}"]

        def rows(j: int | str) -> str:
            return ", ".join(f"values[{k}, own[{j}]]" for k in self.k) if ahead else f"x[own[{j}]]"

        def value(k: int, j: int | str = "") -> str:
            return f"v{k}_{j}[i]" if ahead else self.call(self.d.sums[k], f"x{j}[i]")

        whole_size = names()[0]
        first = self.helper("first", [*names(), *sums], [f"s{k}[i] = {value(k)}" for k in self.k], whole_size)
        more = self.helper("more", [*names(), *sums], [f"s{k}[i] += {value(k)}" for k in self.k], whole_size)
        last = self.helper("last", [*sums, "y", "count"], [*(f"t{k} = s{k}[i]" for k in self.k), finish], "y")
        used = {f.name: f for f in (first, more, last)}
        at = ", ".join(f"sums[{k}, at]" for k in self.k)
        general = [
            f"{first.name}({rows(0)}, {at}{given})",
            "for j in range(1, terms):",
            f"    {more.name}({rows('j')}, {at}{given})",
            f"{last.name}({at}, y[at], count{given})",
        ]
        if volume <= UNROLLED:
            taps = range(volume)
            lines = [self.total(k, [value(k, j) for j in taps]) for k in self.k]
            each = [name for j in taps for name in names(j)]
            whole = self.helper("whole", [*each, *sums, "y", "count"], [*lines, *keep, finish], "y")
            used[whole.name] = whole
            general = [
                f"if terms == {volume}:",
                f"    {whole.name}({', '.join(map(rows, taps))}, {at}, y[at], count{given})",
                "else:",
                *indented(general),
            ]
        inner = [*self.gather(_WINDOW, "size"), "count = real(terms)", *general]
        body = [*self.set_parameters]
        if ahead:
            values = [f"v{k}" for k in self.k]
            lines = [f"v{k}[i] = {self.call(scalar)}" for k, scalar in enumerate(self.d.sums)]
            before = self.helper("values", ["x", *values], lines, "x")
            used[before.name] = before
            body += ["for place in prange(x.shape[0]):"]
            row = ", ".join(f"values[{k}, place]" for k in self.k)
            body += [f"    {before.name}(x[place], {row}{given})"]
        body += self.row("out", inner)
        arrays = ["x", "y", "sums", *(["values"] if ahead else []), "places", "batch"]
        arguments = [*arrays, *_GEOMETRY, *self.d.parameters]
        return Kernel(text(f"{self.d.op}_forward", arguments, body, {**self.names, **used}))

    def share_lines(self) -> list[str]:
        return [f"u{k}[i] = dy[i] * {self.call(by)}" for k, by in enumerate(self.by)]

    def backward(self, counts: Sequence[int]) -> Kernel:
        sums, shares = [f"s{k}" for k in self.k], [f"u{k}" for k in self.k]
        lines = [*(f"t{k} = s{k}[i]" for k in self.k), *self.share_lines()]
        share = self.helper("share", ["dy", *sums, *shares, "count"], lines, "dy")
        slopes = [(k, self.call(slope)) for k, slope in enumerate(self.slopes) if slope is not None]
        used = {share.name: share}

        def add(name: str, sign: str) -> Function:
            lines = [f"dx[i] {sign} {' + '.join(f'{d} * u{k}[i]' for k, d in slopes) or 'real(0)'}"]
            return self.helper(name, ["x", "dx", *shares], lines, "dx")

        given = "".join(", " + p for p in self.p)
        zero = self.helper("zero", ["dx"], ["dx[i] = real(0)"], "dx")
        first, more = add("set_slope", "="), add("add_slope", "+=")
        used |= {f.name: f for f in (zero, first, more)}
        at = ", ".join(f"shares[{k}, own[j]]" for k in self.k)
        branches = ["if terms == 0:", f"    {zero.name}(dx[at]{given})"]
        for count in counts:
            if count <= UNROLLED:
                names = [f"u{k}_{j}" for k in self.k for j in range(count)]
                each = [f"{d} * ({' + '.join(f'u{k}_{j}[i]' for j in range(count))})" for k, d in slopes]
                run = self.helper(
                    f"slope_{count}", ["x", "dx", *names], [f"dx[i] = {' + '.join(each) or 'real(0)'}"], "dx"
                )
                used[run.name] = run
                rows = ", ".join(f"shares[{k}, own[{j}]]" for k in self.k for j in range(count))
                branches += [f"elif terms == {count}:", f"    {run.name}(x[at], dx[at], {rows}{given})"]
        branches += [
            "else:",
            "    j = 0",
            f"    {first.name}(x[at], dx[at], {at}{given})",
            "    for j in range(1, terms):",
            f"        {more.name}(x[at], dx[at], {at}{given})",
        ]
        all_sums = ", ".join(f"sums[{k}, at]" for k in self.k)
        all_shares = ", ".join(f"shares[{k}, at]" for k in self.k)
        sharing = [
            *self.window(_WINDOW, "a_d", "a_h", "a_w"),
            "count = real((hi_d - lo_d) * (hi_h - lo_h) * (hi_w - lo_w))",
            f"{share.name}(dy[at], {all_sums}, {all_shares}, count{given})",
        ]
        body = [
            *self.set_parameters,
            *self.row("out", sharing),
            *self.row("size", [*self.gather(_HOLDERS, "out"), *branches]),
        ]
        arguments = ["x", "dy", "dx", "sums", "shares", "places", "batch", *_GEOMETRY, *self.d.parameters]
        return Kernel(text(f"{self.d.op}_backward", arguments, body, {**self.names, **used}))

    # -- CUDA -------------------------------------------------------------------------------------------------

    def threads(
        self, kind: str, over: str, target: str, arguments: list[str], lines: list[str]
    ) -> CudaKernel:
        """A thread an element of `over` (positions, C), which has place a_d, a_h, a_w of `target`."""
        body = [
            *self.set_parameters,
            f"channels = {over}.shape[1]",
            f"for k in range(cu.grid(1), {over}.size, cu.gridsize(1)):",
            "    at = k // channels",
            "    i = k - at * channels",
            f"    a_w = at % {target}[2]",
            f"    row = at // {target}[2]",
            f"    a_h = row % {target}[1]",
            f"    a_d = row // {target}[1] % {target}[0]",
            f"    n = row // {target}[1] // {target}[0]",
            *indented(lines),
        ]
        return CudaKernel(
            text(f"{self.d.op}_{kind}", [*arguments, *_GEOMETRY, *self.d.parameters], body, self.names)
        )

    def forward_cuda(self) -> CudaKernel:
        place = "x[((n * size[0] + d) * size[1] + h) * size[2] + w, i]"
        lines = [
            *self.window(_WINDOW, "a_d", "a_h", "a_w"),
            "count = real((hi_d - lo_d) * (hi_h - lo_h) * (hi_w - lo_w))",
            *(f"t{k} = real(0)" for k in self.k),
            *_ALL,
            f"            v = {place}",
            *(f"            t{k} += {self.call(self.d.sums[k], 'v')}" for k in self.k),
            *(f"sums[{k}, at, i] = t{k}" for k in self.k),
            f"y[at, i] = {self.d.finish.call(self.texts)}",
        ]
        return self.threads("forward", "y", "out", ["x", "y", "sums"], lines)

    def shares_cuda(self) -> CudaKernel:
        lines = [
            *self.window(_WINDOW, "a_d", "a_h", "a_w"),
            "count = real((hi_d - lo_d) * (hi_h - lo_h) * (hi_w - lo_w))",
            *(f"t{k} = sums[{k}, at, i]" for k in self.k),
            *(f"shares[{k}, at, i] = dy[at, i] * {self.call(by)}" for k, by in enumerate(self.by)),
        ]
        return self.threads("shares", "dy", "out", ["dy", "sums", "shares"], lines)

    def backward_cuda(self) -> CudaKernel:
        place = "((n * out[0] + d) * out[1] + h) * out[2] + w"
        slopes = [f"{self.call(slope, 'v')} * u{k}" for k, slope in enumerate(self.slopes) if slope]
        lines = [
            *self.window(_HOLDERS, "a_d", "a_h", "a_w"),
            *(f"u{k} = real(0)" for k in self.k),
            *_ALL,
            *(f"            u{k} += shares[{k}, {place}, i]" for k in self.k),
            "v = x[at, i]",
            f"dx[at, i] = {' + '.join(slopes) or 'real(0)'}",
        ]
        return self.threads("backward", "dx", "size", ["x", "dx", "shares"], lines)


@cache
def pooling_kernels(
    declared: DeclaredPooling, kernel: tuple[int, ...], stride: tuple[int, ...], ahead: bool
) -> PoolingKernels:
    """For windows of one size; kernel and stride have three dimensions."""
    w = _Writer(declared)
    return PoolingKernels(
        w.forward(math.prod(kernel), ahead),
        w.backward(covering(kernel, stride)),
        w.forward_cuda(),
        w.shares_cuda(),
        w.backward_cuda(),
    )
