"""CPU kernels of a normalization whose statistics run across memory: x (O, P, L), of which the P lines of L elements
of each o are summed into one line, and `width` neighbours of that line into one row of statistics.

Channels last, lines are positions, and a group's channels neighbours. Channels first, the statistics over channels
alone: lines are channels, of width 1. Formulas: normalization_writer.py.

Columns are cut into blocks of `step`, a multiple of `width`. A slot of scratch takes some blocks of some o through all
passes, in an order that the shape decides; sums run over CHUNK lines in the kernel's precision, then in float64.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from normcore.kernels import Kernel
from normcore.kernels.unaliased import unaliased
from normcore.templates.declaration import Scalar, indented, text
from normcore.templates.invariants import Invariants, is_x, slope_of_line, takes_x
from normcore.templates.line_helpers import clear, flush, line_sum, merge, read
from normcore.templates.normalization_writer import Declared, Writer

CHUNK = 128  # lines summed in the kernel's own precision
SLOTS = 16


_HELPERS: dict[str, Any] = {f.name: f for f in (clear, flush, read, merge, line_sum)}
_HELPERS |= {"unaliased": unaliased, "CHUNK": CHUNK}


class LineWriter(Writer):
    """by_line: a line is a channel; else an element of the line is. What belongs to element i is n = n_line[i]."""

    def __init__(self, declared: Declared, by_line: bool):
        self.invariants = Invariants()
        super().__init__(declared)
        self.by_line = by_line
        self.summands = {"t_gamma": self.normalize}
        self.summands |= {f"t_{k}": by for k, by in enumerate(self.by) if by}
        self.summands |= {f"c_{j}_{k}": f for (j, k), f in self.cross.items()}
        # A statistic that is the mean of x, and the slopes of summands that are lines over x; see `follows`.
        self.mean = next((s for s, k in zip(self.s, self.statistics, strict=True) if is_x(k)), "")
        of = {n: f for n, f in self.summands.items() if self.mean and (n[0] == "c" or not by_line)}
        self.tilts = {n: self.prepared(slope) for n, f in of.items() if (slope := slope_of_line(f))}
        parts = self.invariants.parts
        self.stem = f"{declared.op}_{'channel' if by_line else 'column'}"
        self.h = [f"h_{k}" for k in range(len(parts))]  # values of the invariants
        self.texts |= dict(zip(parts, self.h, strict=True))
        self.names |= {name: part.function for name, part in parts.items()} | _HELPERS
        self.names |= {f.function.name: f.function for f in self.tilts.values()}
        self.q = [f"q_{k}" for k in range(len(self.s))]
        # What is summed into lines; of the parameters' gradients, elements of by_line's lines are added up at once.
        self.added = [s for s in self.sums[2 if by_line else 0 :] if not self.follows(s)]
        self.added += ["t_along"] if any(name[0] == "t" for name in self.tilts) else []
        self.kept = [*self.s, *self.h, *([] if by_line else ["a", "b"])]  # lines in both directions
        self.walks = 0  # over the lines, so far
        # Lines of scratch that both directions can need, in the kernel's precision and in float64.
        self.scratch = len(self.kept) + len(self.q) + len(self.sums) + 2, len(self.sums) + 1

    def prepared(self, scalar: Scalar) -> Scalar:
        return self.invariants.split(scalar)

    def follows(self, name: str) -> str:
        """The text of a sum for element i, in float64, where it follows from sums that are there in any case.

        A line over x is f(m) + f' (x - m) for any m. With the mean of x for m, the sum of f over the row is m's f
        times its elements; that of g f is f(m) times that of g plus f' times that of g (x - m).
        """
        f, slope = self.summands.get(name), self.tilts.get(name)
        if f is None or (takes_x(f) and slope is None):
            return ""
        texts = {**self.texts, "x": self.mean or "real(0)"}
        value = f"wide({f.call(texts)})"
        if name[0] == "c":
            return f"{value} * wide(planes)"
        if self.by_line:
            return ""
        total = f"{value} * wt_beta_line[i]"
        total += f" + wide({slope.call(texts)}) * wt_along_line[i]" if slope else ""
        return total if name == "t_gamma" else f"wide(a) * ({total})"

    def units(self, kind: str, arguments: list[str], lines: list[str], inner: list[str]) -> Kernel:
        """The kernel whose helper takes a block of columns of one o through all passes, and what follows them.

        Loops stand in the helper itself: a helper of their own would be vectorized before the compiler knows that
        lines do not overlap.
        """
        head = ["outer, planes, length = x_all.shape", "count = wide(planes * width)", *self.begin()]
        head += ["size = hi - lo", "row = (o * length + lo) // width"]
        for array, of in (
            ("lines", [n for n in lines if n[0] != "w"]),
            ("wides", [n for n in lines if n[0] == "w"]),
        ):
            head += [f"{n}_line = unaliased({array}[slot, {k}][:size])" for k, n in enumerate(of)]
        given = [*arguments, "lines", "wides", "width", "step", *self.d.parameters, "e"]
        values = ", ".join([*given, "slot", "unit", "o", "lo", "hi"])
        unit = text(f"{self.stem}_{kind}_unit", values.split(", "), [*head, *inner], self.names)
        body = [
            "outer, _, length = x_all.shape",
            "blocks = (length + step - 1) // step",
            "slots = lines.shape[0]",
            "share = (outer * blocks + slots - 1) // slots",
            # Threads get neighbouring slots: empty ones at the end would all be one thread's.
            "for slot in prange((outer * blocks + share - 1) // share):",
            "    for unit in range(slot * share, min(outer * blocks, slot * share + share)):",
            "        o = unit // blocks",
            "        lo = unit % blocks * step",
            "        hi = min(length, lo + step)",
            f"        {unit.name}({values})",
        ]
        if "dgamma" in arguments:
            body += ["for c in range(dgamma.size):", *indented(self.parameter_lines())]
        return Kernel(text(f"{self.stem}_{kind}", given, body, {**self.names, unit.name: unit}))

    def of_element(self, *names: str) -> list[str]:
        return [f"{n} = {n}_line[i]" for n in (*self.kept, *names)]

    def weight_lines(self, of_line: bool) -> list[str]:
        """a and b: of all elements of a line, or of line p."""
        if of_line != self.by_line:
            return []
        values = [
            f"{n} = {g}[PLACE] if gamma.size > 0 else real({d})"
            for n, g, d in (("a", "gamma", 1), ("b", "beta", 0))
        ]
        if of_line:
            return [line.replace("PLACE", "p") for line in values]
        return [
            "for i in range(size):",
            *(f"    {v.replace('PLACE', 'lo + i').replace(' =', '_line[i] =', 1)}" for v in values),
        ]

    def part_lines(self, known: int) -> list[str]:
        """Lines that compute those invariants that need the first `known` statistics, and not fewer."""
        needs = {k.name: n for n, k in enumerate(self.statistics, 1)}
        loads, values = [f"{s} = {s}_line[i]" for s in self.s[:known]], []
        for h, (name, part) in zip(self.h, self.invariants.parts.items(), strict=True):
            needs[name] = max(
                (needs.get(a, 0) for a in part.arguments), default=0
            )  # also of earlier invariants
            if needs[name] < known:
                loads.append(f"{h} = {h}_line[i]")
            elif needs[name] == known:
                values += [f"{h} = {self.value(part)}", f"{h}_line[i] = {h}"]
        return ["for i in range(size):", *indented([*loads, *values])] if values else []

    def each_element(self, arrays: tuple[str, ...], lines: list[str]) -> list[str]:
        """Lines for each element i of line p."""
        views = [f"{a} = {a}_all[o, p][lo:hi]" for a in arrays]
        return [*self.weight_lines(True), *views, "for i in range(size):", *indented(lines)]

    def in_chunks(self, lines: list[str]) -> list[str]:
        """Lines for chunks of lines, from begin to last.

        Each walk begins where the one before it ended, with what is still in the cache; but within a chunk lines
        come as memory is fetched ahead.
        """
        self.walks += 1
        begin = "chunk" if self.walks % 2 else "(planes - 1) // CHUNK * CHUNK - chunk"
        head = ["for chunk in range(0, planes, CHUNK):", f"    begin = {begin}"]
        return [*head, "    last = min(planes, begin + CHUNK)", *indented(lines)]

    def summed(self, sums: list[str], lines: list[str]) -> list[str]:
        """Lines that run `lines` for every line p, and add up in float64 what they add to `sums`."""
        chunk = [*(f"clear({s}_line)" for s in sums), "for p in range(begin, last):", *indented(lines)]
        chunk += [f"flush({s}_line, w{s}_line)" for s in sums]
        return [*(f"clear(w{s}_line)" for s in sums), *self.in_chunks(chunk)]

    def each_line(self, target: str, arrays: tuple[str, ...], lines: list[str]) -> list[str]:
        """Lines that fill line p of the target for all p; around the caches where they could not hold it."""
        run = self.each_element(arrays, lines)
        far = [
            "for first in range(begin, last, together):",
            "    stop = min(last, first + together)",
            "    for p in range(first, stop):",
            f"        {target} = block[(p - first) * size : (p - first + 1) * size]",
            *indented(indented(run)),
            f"    stream_run({target}_all, (o * planes + first) * length + lo, block, (stop - first) * size)",
        ]
        near = ["for p in range(begin, last):", f"    {target} = {target}_all[o, p][lo:hi]", *indented(run)]
        return [
            f"far = leaves_cache({target}_all) and size <= STREAM_BLOCK",
            "together = STREAM_BLOCK // size if size == length else 1",
            f"block = stack_block({target}_all)",
            *self.in_chunks(["if far:", *indented(far), "else:", *indented(near)]),
        ]

    def forward(self) -> Kernel:
        self.walks = 0
        body: list[str] = []
        for k, scalar in enumerate(self.statistics):
            known = [
                f"{s} = {s}_line[i]"
                for s in (*self.s[:k], *(self.h if scalar is not self.d.statistics[k] else []))
            ]
            add = self.each_element(("x",), [*known, f"t_line[i] += {self.value(scalar)}"])
            body += [*self.part_lines(k), *self.summed(["t"], add)]
            body += [f"merge(wt_line, {self.s[k]}_line, stats[row:, {k}], width, count)"]
        value = f"epilogue(affine({self.value(self.normalize)}, a, b), e)"
        body += [*self.part_lines(len(self.s)), *self.weight_lines(False)]
        body += self.each_line("y", ("x",), [*self.of_element(), f"y[i] = {value}"])
        return self.units(
            "forward", ["x_all", "y_all", "gamma", "beta", "stats"], [*self.kept, "t", "wt"], body
        )

    def sum_lines(self) -> list[str]:
        """Lines that add what line p gives to the sums."""
        sums = {"t_beta": "g", "t_along": f"g * (x[i] - {self.mean})", "t_gamma": "g * v"}
        sums |= {f"t_{k}": f"a * g * {self.value(by)}" for k, by in enumerate(self.by) if by}
        sums |= {f"c_{j}_{k}": self.value(f) for (j, k), f in self.cross.items()}
        lines = [
            *self.of_element(),
            *self.gradient_lines(),
            *(f"{s}_line[i] += {sums[s]}" for s in self.added),
        ]
        if not self.by_line:
            return self.each_element(("x", "dy"), lines)
        lines += [f"{s}_line[i] = {sums[s]}" for s in ("t_beta", "t_gamma")]
        return [
            *self.each_element(("x", "dy"), lines),
            "part[unit * planes + p, 0] = wide(line_sum(t_gamma_line))",
            "part[unit * planes + p, 1] = wide(line_sum(t_beta_line))",
        ]

    def row_lines(self) -> list[str]:
        """Lines that give q of every element from the sums of its row."""
        names = self.row_names()  # g_k is the sum of t_k, r_j_k of c_j_k
        each = "for i in range(k * width, k * width + width):"
        lines = [f"{n} = wide(0)" for n in names]
        if names:
            lines += [each, *indented(self.of_element())]
        for n in names:
            of = ("t" if n[0] == "g" else "c") + n[1:]
            lines.append(f"    {n} += {self.follows(of) or f'w{of}_line[i]'}")
        lines += self.chain_lines()
        lines += [each, *(f"    {q}_line[i] = {q}" for q in self.q)] if self.q else []
        return ["for k in range(size // width):", *indented(lines)]

    def backward(self) -> Kernel:
        self.walks = 0
        body = [f"read(stats[row:, {k}], {s}_line, width)" for k, s in enumerate(self.s)]
        for known in range(len(self.s) + 1):
            body += self.part_lines(known)
        body += [*self.weight_lines(False), *self.summed(self.added, self.sum_lines())]
        if not self.by_line:
            place = "part[o * length + lo + i, {}] = {}"
            own = [
                place.format(0, self.follows("t_gamma") or "wt_gamma_line[i]"),
                place.format(1, "wt_beta_line[i]"),
            ]
            body += ["for i in range(size):", *indented([*self.of_element(), *own])]
        slope = [*self.of_element(*self.q), *self.gradient_lines(), self.input_line()]
        body += ["if wanted:", *indented([*self.row_lines(), *self.each_line("dx", ("x", "dy"), slope)])]
        arguments = [
            "x_all",
            "dy_all",
            "dx_all",
            "gamma",
            "beta",
            "dgamma",
            "dbeta",
            "stats",
            "part",
            "wanted",
        ]
        lines = [*self.kept, *self.q, *self.sums, "t_along", *(f"w{s}" for s in self.added)]
        return self.units("backward", arguments, lines, body)


@dataclass(frozen=True)
class LineKernels:
    """scratch: lines of scratch that both need, in the kernel's precision and in float64."""

    forward: Kernel
    backward: Kernel
    scratch: tuple[int, int]


@cache
def line_kernels(declared: Declared, by_line: bool) -> LineKernels:
    w = LineWriter(declared, by_line)
    return LineKernels(w.forward(), w.backward(), w.scratch)
