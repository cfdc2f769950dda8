"""CPU kernels of a normalization whose rows of statistics are planes of memory. Formulas: normalization_writer.py."""

from dataclasses import dataclass
from functools import cache

from normcore.kernels import Kernel
from normcore.kernels.function import Function
from normcore.templates.declaration import BLOCK, indented, text
from normcore.templates.normalization_writer import Declared, Writer


class PlaneWriter(Writer):
    def helper(self, name: str, arguments: list[str], lines: list[str], **flags: bool) -> Function:
        return text(f"{self.d.op}_{name}", arguments, lines, self.names, force=True, **flags)

    def target_lines(self, target: str, arrays: tuple[str, ...], run: Function, given: str) -> list[str]:
        """Lines that run a helper on all planes of a row; around the caches where they could not hold the target."""
        parts = [f"part_{a} = {a}{self.plane}" for a in (target, *arrays)]
        whole = ", ".join(f"part_{a}" for a in (*arrays, target))
        blocks = ", ".join([*(f"part_{a}[lo:hi]" for a in arrays), "block[: hi - lo]"])
        lines = [
            *self.weights(),
            *parts,
            "if far:",
            f"    block = stack_block(part_{target})",
            f"    lo, hi = 0, first_stop(part_{target})",
            "    while lo < length:",
            f"        {run.name}({blocks}, {given})",
            f"        stream_run(part_{target}, lo, block, hi - lo)",
            "        lo, hi = hi, min(length, hi + STREAM_BLOCK)",
            "else:",
            f"    {run.name}({whole}, {given})",
        ]
        return ["for p in range(planes):", *indented(lines)]

    def forward(self) -> Kernel:
        used: dict[str, Function] = {}
        row: list[str] = []
        for k, scalar in enumerate(self.statistics):
            given = [*self.s[:k], *self.p]
            lines = [
                "total = real(0)",
                "for i in range(x.size):",
                f"    total += {self.value(scalar)}",
                "return total",
            ]
            run = self.helper(f"{scalar.name}_run", ["x", *given], lines, reassociate=True)
            used[run.name] = run
            more = "".join(", " + g for g in given)
            blocks = [
                f"for lo in range(0, part.size, {BLOCK}):",
                f"    total += wide({run.name}(part[lo : min(part.size, lo + {BLOCK})]{more}))",
            ]
            row.append("total = wide(0)")
            if self.d.across:
                row += ["for p in range(planes):", *indented(["part = x[p, r]", *blocks])]
            else:
                row += ["part = flat[r]", *blocks]
            row += [f"{self.s[k]} = real(total / count)", f"stats[r, {k}] = {self.s[k]}"]
        lines = [
            "for i in range(x.size):",
            f"    y[i] = epilogue(affine({self.value(self.normalize)}, a, b), e)",
        ]
        out = self.helper("out_run", ["x", "y", *self.s, *self.p, "a", "b", "e"], lines)
        used[out.name] = out
        values = ", ".join([*self.s, *self.p])
        row += self.target_lines("y", ("x",), out, f"{values}, a, b, e")
        body = [
            *self.shape(),
            *self.begin(),
            "far = leaves_cache(y)",
            "for r in prange(rows):",
            *indented(row),
        ]
        arguments = ["x", "flat", "y", "gamma", "beta", "stats", *self.d.parameters, "e"]
        return Kernel(text(f"{self.d.op}_forward", arguments, body, {**self.names, **used}))

    def backward(self) -> Kernel:
        given = [*self.s, *self.p]
        lines = [
            *(f"{s} = real(0)" for s in self.sums),
            "for i in range(x.size):",
            *indented([*self.gradient_lines(), *self.sum_lines()]),
            f"return {', '.join(self.sums)}",
        ]
        sums = self.helper("sums_run", ["x", "dy", *given, "a", "b", "e"], lines, reassociate=True)
        q = [f"q_{k}" for k in range(len(self.s))]
        lines = ["for i in range(x.size):", *indented([*self.gradient_lines(), self.input_line()])]
        slope = self.helper("slope_run", ["x", "dy", "dx", *given, *q, "a", "b", "e"], lines)
        values = ", ".join(given)
        plane = [
            *self.weights(),
            f"part_x, part_dy = x{self.plane}, dy{self.plane}",
            "total, along = wide(0), wide(0)",
            f"for lo in range(0, length, {BLOCK}):",
            f"    hi = min(length, lo + {BLOCK})",
            f"    {', '.join(self.sums)} = {sums.name}(part_x[lo:hi], part_dy[lo:hi], {values}, a, b, e)",
            "    total += wide(t_beta)",
            "    along += wide(t_gamma)",
            *indented(self.add_row()),
            "part[j, 0] = along",
            "part[j, 1] = total",
        ]
        last = self.target_lines("dx", ("x", "dy"), slope, f"{values}, {', '.join(q)}, a, b, e")
        row = [
            *(f"{s} = stats[r, {k}]" for k, s in enumerate(self.s)),
            *(f"{name} = wide(0)" for name in self.row_names()),
            "for p in range(planes):",
            *indented(plane),
            "if wanted:",
            *indented([*self.chain_lines(), *last]),
        ]
        body = [
            *self.shape(),
            *self.begin(),
            "far = leaves_cache(dx)",
            "for r in prange(rows):",
            *indented(row),
            "for c in range(dgamma.size):",
            *indented(self.parameter_lines()),
        ]
        arguments = ["x", "dy", "dx", "gamma", "beta", "dgamma", "dbeta", "stats", "part", "wanted"]
        used = {sums.name: sums, slope.name: slope}
        return Kernel(
            text(f"{self.d.op}_backward", [*arguments, *self.d.parameters, "e"], body, {**self.names, **used})
        )


@dataclass(frozen=True)
class PlaneKernels:
    forward: Kernel
    backward: Kernel


@cache
def plane_kernels(declared: Declared) -> PlaneKernels:
    w = PlaneWriter(declared)
    return PlaneKernels(w.forward(), w.backward())
