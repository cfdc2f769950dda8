"""CPU kernels of a normalization whose statistics run across memory: x (O, P, L), of which the P lines of L elements
of each o are summed into one line, and `width` neighbours of that line into one row of statistics.

Channels last, lines are positions, and a group's channels neighbours. Channels first, the statistics over channels
alone: lines are channels, of width 1. Formulas: normalization_kernels.py.

Columns are cut into blocks of `step`, a multiple of `width`. A slot of scratch takes some blocks of some o through all
passes, in an order that the shape decides; sums run over CHUNK lines in the kernel's precision, then in float64.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from normcore.kernels import Kernel, inline, real, wide
from normcore.kernels.function import Function
from normcore.templates.declaration import Scalar, indented, text
from normcore.templates.normalization_kernels import Declared, Writer

CHUNK = 256  # lines summed in the kernel's own precision
TOGETHER = 4  # lines read at once by a statistic
SLOTS = 16


@inline(force=True)
def clear(line: Any) -> None:
    for i in range(line.size):
        line[i] = real(0)


@inline(force=True)
def flush(line: Any, total: Any) -> None:
    for i in range(total.size):
        total[i] += wide(line[i])


@inline(force=True)
def read(rows: Any, line: Any, width: Any) -> None:
    """Rows of statistics, each for `width` elements of the line."""
    for k in range(line.size // width):
        for i in range(k * width, k * width + width):
            line[i] = rows[k]


@inline(force=True)
def merge(total: Any, line: Any, rows: Any, width: Any, count: Any) -> None:
    """Means of `width` neighbours of a line of sums, into rows of statistics and for each element."""
    for k in range(line.size // width):
        found = wide(0)
        for i in range(k * width, k * width + width):
            found += total[i]
        rows[k] = real(found / count)
        for i in range(k * width, k * width + width):
            line[i] = rows[k]


_HELPERS = {helper.name: helper for helper in (clear, flush, read, merge)}


class LineWriter(Writer):
    """by_line: a line is a channel; else an element of the line is."""

    def __init__(self, declared: Declared, by_line: bool):
        super().__init__(declared)
        self.by_line = by_line
        self.stem = f"{declared.op}_{'channel' if by_line else 'column'}"
        self.texts |= {name: f"{s}[i]" for name, s in self.statistic_names.items()}
        self.a, self.b = ("a", "b") if by_line else ("a[i]", "b[i]")
        self.chain = [f"q_{k}" for k in range(len(self.s))]
        # What is summed into lines; the parameters' gradients too where an element is a channel.
        self.added = self.sums[2:] if by_line else self.sums
        self.kept = [*self.s, *([] if by_line else ["a", "b"])]  # lines of scratch in both directions

    @staticmethod
    def scratch(statistics: int) -> tuple[int, int]:
        """Lines of scratch that both directions can need, in the kernel's precision and in float64."""
        sums = 2 + statistics + statistics * (statistics - 1) // 2
        return 2 * statistics + 2 + sums, sums

    def helper(self, name: str, arguments: list[str], lines: list[str], **flags: bool) -> Function:
        return text(f"{self.stem}_{name}", arguments, lines, self.names, force=True, **flags)

    def element_wise(self, name: str, arguments: list[str], lines: list[str], over: str) -> Function:
        return self.helper(name, arguments, [f"for i in range({over}.size):", *indented(lines)])

    def lines_of_scratch(self, real_names: list[str], wide_names: list[str]) -> list[str]:
        lines = [f"{name} = lines[slot, {k}][:size]" for k, name in enumerate(real_names)]
        return lines + [f"{name} = wides[slot, {k}][:size]" for k, name in enumerate(wide_names)]

    def units(self, names: list[str], inner: list[str]) -> list[str]:
        """Lines for each block of columns of each o."""
        return [
            "outer, planes, length = x.shape",
            "count = wide(planes * width)",
            *self.begin(),
            "blocks = (length + step - 1) // step",
            "slots = lines.shape[0]",
            "share = (outer * blocks + slots - 1) // slots",
            # Threads get neighbouring slots: empty ones at the end would all be one thread's.
            "for slot in prange((outer * blocks + share - 1) // share):",
            "    for unit in range(slot * share, min(outer * blocks, slot * share + share)):",
            "        o = unit // blocks",
            "        lo = unit % blocks * step",
            "        hi = min(length, lo + step)",
            "        size = hi - lo",
            "        row = (o * length + lo) // width",
            *indented(indented([*names, *inner])),
        ]

    def weight_lines(self) -> list[str]:
        if self.by_line:
            return []
        own = ["a[i] = gamma[lo + i] if gamma.size > 0 else real(1)"]
        own += ["b[i] = beta[lo + i] if gamma.size > 0 else real(0)"]
        return ["for i in range(size):", *indented(own)]

    def weights_of_line(self) -> list[str]:
        if not self.by_line:
            return []
        return [
            "a = gamma[p] if gamma.size > 0 else real(1)",
            "b = beta[p] if gamma.size > 0 else real(0)",
        ]

    def summed(self, sums: list[str], lines: list[str], together: list[str] | None = None) -> list[str]:
        """Lines that run `lines` for every line p, and add what they gather in `sums` up in float64."""
        clear = [f"clear({s})" for s in sums]
        each = ["for p in range(begin, last):", *indented(lines)]
        if together is not None:
            each = [
                f"whole = begin + (last - begin) // {TOGETHER} * {TOGETHER}",
                f"for p in range(begin, whole, {TOGETHER}):",
                *indented(together),
                "for p in range(whole, last):",
                *indented(lines),
            ]
        return [
            *(f"clear(w{s})" for s in sums),
            f"for begin in range(0, planes, {CHUNK}):",
            f"    last = min(planes, begin + {CHUNK})",
            *indented([*clear, *each, *(f"flush({s}, w{s})" for s in sums)]),
        ]

    def forward(self) -> Kernel:
        used: dict[str, Function] = {}
        body: list[str] = []
        for k, scalar in enumerate(self.statistics):
            earlier = self.s[:k]

            def value(x: str, scalar: Scalar = scalar) -> str:
                return scalar.call({**self.texts, "x": f"{x}[i]"})

            xs = [f"x{j}" for j in range(TOGETHER)]
            pairs = [" + ".join(f"{value(x)}" for x in xs[j : j + 2]) for j in range(0, TOGETHER, 2)]
            one = self.element_wise(
                f"{scalar.name}_line", ["x", "t", *earlier, *self.p], [f"t[i] += {value('x')}"], "t"
            )
            four = self.element_wise(
                f"{scalar.name}_lines",
                [*xs, "t", *earlier, *self.p],
                [f"t[i] += {' + '.join(f'({pair})' for pair in pairs)}"],
                "t",
            )
            used |= {one.name: one, four.name: four}
            tail = ", ".join(["t", *earlier, *self.p])
            rows = ", ".join(f"x[o, p + {j}][lo:hi]" for j in range(TOGETHER))
            body += self.summed(
                ["t"], [f"{one.name}(x[o, p][lo:hi], {tail})"], [f"{four.name}({rows}, {tail})"]
            )
            body += [f"merge(wt, {self.s[k]}, stats[row:, {k}], width, count)"]
        line = self.element_wise(
            "out_line",
            ["x", "y", *self.s, *self.p, "a", "b", "e"],
            [f"y[i] = epilogue(affine({self.value(self.d.normalize)}, {self.a}, {self.b}), e)"],
            "y",
        )
        used[line.name] = line
        given = ", ".join([*self.s, *self.p, "a", "b", "e"])
        body += [
            *self.weight_lines(),
            "for back in range(planes):",
            "    p = planes - 1 - back  # what was read last is still in the cache",
            *indented(self.weights_of_line()),
            f"    {line.name}(x[o, p][lo:hi], y[o, p][lo:hi], {given})",
        ]
        arguments = ["x", "y", "gamma", "beta", "stats", "lines", "wides", "width", "step"]
        body = self.units(self.lines_of_scratch([*self.kept, "t"], ["wt"]), body)
        return self.kernel("forward", [*arguments, *self.d.parameters, "e"], body, used)

    def backward(self) -> Kernel:
        used: dict[str, Function] = {}
        given = [*self.s, *self.p, "a", "b"]
        values = ", ".join(given)
        gradient = [line.replace(", a, b)", f", {self.a}, {self.b})") for line in self.gradient_lines()]
        sums = {"t_beta": "g", "t_gamma": "g * v"}
        sums |= {f"t_{k}": f"{self.a} * g * {self.value(by)}" for k, by in enumerate(self.by) if by}
        sums |= {f"c_{j}_{k}": self.value(f) for (j, k), f in self.cross.items()}
        adding = [f"{s}[i] += {sums[s]}" for s in self.added]
        body = [
            *(f"read(stats[row:, {k}], {s}, width)" for k, s in enumerate(self.s)),
            *self.weight_lines(),
        ]
        if self.by_line:
            totals = ["t_beta", "t_gamma"]
            run = self.helper(
                "sums_line",
                ["x", "dy", *given, "e", *self.added],
                [
                    *(f"{s} = real(0)" for s in totals),
                    "for i in range(x.size):",
                    *indented([*gradient, *(f"{s} += {sums[s]}" for s in totals), *adding]),
                    "return t_beta, t_gamma",
                ],
                reassociate=True,
            )
            call = [
                *self.weights_of_line(),
                f"total, along = {run.name}(x[o, p][lo:hi], dy[o, p][lo:hi], {values}, e"
                f"{''.join(', ' + s for s in self.added)})",
                "part[unit * planes + p, 0] = wide(along)",
                "part[unit * planes + p, 1] = wide(total)",
            ]
            parts: list[str] = []
        else:
            run = self.element_wise(
                "sums_line", ["x", "dy", *given, "e", *self.added], [*gradient, *adding], "x"
            )
            call = [
                f"{run.name}(x[o, p][lo:hi], dy[o, p][lo:hi], {values}, e{''.join(', ' + s for s in self.added)})"
            ]
            parts = [
                "for i in range(size):",
                "    part[o * length + lo + i, 0] = wt_gamma[i]",
                "    part[o * length + lo + i, 1] = wt_beta[i]",
            ]
        slope = self.input_line().replace("a * g", f"{self.a} * g")
        for q in self.chain:
            slope = slope.replace(f"{q} *", f"{q}[i] *")
        last = self.element_wise(
            "slope_line", ["x", "dy", "dx", *given, "e", *self.chain], [*gradient, slope], "x"
        )
        used |= {run.name: run, last.name: last}
        names = self.row_names()  # g_k is the sum of t_k, r_j_k of c_j_k
        totals_of = {n: f"w{('t' if n[0] == 'g' else 'c') + n[1:]}" for n in names}
        wanted = [
            "for k in range(size // width):",
            *(f"    {n} = wide(0)" for n in names),
            *(["    for i in range(k * width, k * width + width):"] if names else []),
            *(f"        {n} += {w}[i]" for n, w in totals_of.items()),
            *indented(self.chain_lines()),
            *(["    for i in range(k * width, k * width + width):"] if self.chain else []),
            *(f"        {q}_line[i] = {q}" for q in self.chain),
            "for back in range(planes):",
            "    p = planes - 1 - back",
            *indented(self.weights_of_line()),
            f"    {last.name}(x[o, p][lo:hi], dy[o, p][lo:hi], dx[o, p][lo:hi], {values}, e"
            f"{''.join(f', {q}_line' for q in self.chain)})",
        ]
        body += [*self.summed(self.added, call), *parts, "if wanted:", *indented(wanted)]
        scratch = [*self.kept, *(f"{q}_line" for q in self.chain), *self.added]
        body = self.units(self.lines_of_scratch(scratch, [f"w{s}" for s in self.added]), body)
        body += ["for c in range(dgamma.size):", *indented(self.parameter_lines())]
        arguments = ["x", "dy", "dx", "gamma", "beta", "dgamma", "dbeta", "stats", "part", "lines", "wides"]
        arguments += ["width", "step", "wanted", *self.d.parameters, "e"]
        return self.kernel("backward", arguments, body, used)

    def kernel(self, kind: str, arguments: list[str], body: list[str], used: dict[str, Function]) -> Kernel:
        return Kernel(text(f"{self.stem}_{kind}", arguments, body, {**self.names, **used, **_HELPERS}))


@dataclass(frozen=True)
class LineKernels:
    forward: Kernel
    backward: Kernel


@cache
def line_kernels(declared: Declared, by_line: bool) -> LineKernels:
    w = LineWriter(declared, by_line)
    return LineKernels(w.forward(), w.backward())
