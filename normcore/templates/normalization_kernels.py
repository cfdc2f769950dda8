"""Kernels of a normalization, written from its scalar functions. Arrays are planes of memory: x (R, P, L), where row
r of P planes of L elements shares its statistics; (P, R, L) where rows lie across the samples (`across`).

With f_k the statistics' functions, s_k = mean of f_k(x, s_1 .. s_(k-1)), v = normalize(x, s), z = gamma v + beta:
    A_k = sum of dz gamma dv/ds_k + sum over j > k of A_j * mean of df_j/ds_k        from the last to the first
    dx = dz gamma dv/dx + 1/m sum over k of A_k df_k/dx        dgamma = sum of dz v        dbeta = sum of dz
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from normcore.kernels import CudaKernel, Kernel, inline
from normcore.kernels.function import Function
from normcore.kernels.warps import block_sum
from normcore.templates.declaration import BLOCK, Scalar, indented, text

THREADS = 256  # of a CUDA block, which takes a row


@inline(force=True)
def affine(v: Any, a: Any, b: Any) -> Any:
    return v * a + b


@dataclass(frozen=True, eq=False)
class Declared:
    """A normalization's functions. statistics: in order; parameters: names of numbers that the functions take."""

    op: str
    statistics: tuple[Scalar, ...]
    normalize: Scalar
    parameters: tuple[str, ...]
    across: bool  # rows lie across the samples


@dataclass(frozen=True)
class NormalizationKernels:
    forward: Kernel
    backward: Kernel
    forward_cuda: CudaKernel
    backward_cuda: CudaKernel
    parameters_cuda: CudaKernel


class Writer:
    def __init__(self, declared: Declared):
        self.d = declared
        self.statistics = declared.statistics
        self.s = [f"s_{k.name}" for k in declared.statistics]
        self.p = [f"p_{name}" for name in declared.parameters]
        self.statistic_names = dict(zip((k.name for k in declared.statistics), self.s, strict=True))
        self.texts = {
            **self.statistic_names,
            **dict(zip(declared.parameters, self.p, strict=True)),
            "x": "x[i]",
        }
        self.plane = "[p, r]" if declared.across else "[r, p]"
        functions = [*declared.statistics, declared.normalize]
        self.slopes = [k.derivative("x") for k in declared.statistics]
        self.slope = declared.normalize.derivative("x")
        self.by = [declared.normalize.derivative(k.name) for k in declared.statistics]
        # df_j / ds_k for j > k, where it is not zero.
        self.cross = {
            (j, k): found
            for j, later in enumerate(declared.statistics)
            for k, earlier in enumerate(declared.statistics[:j])
            if (found := later.derivative(earlier.name)) is not None
        }
        functions += [f for f in (*self.slopes, self.slope, *self.by, *self.cross.values()) if f is not None]
        self.names: dict[str, Any] = {f.function.name: f.function for f in functions}
        self.names |= {"affine": affine, "block_sum": block_sum, "np": np}
        self.sums = ["t_beta", "t_gamma", *(f"t_{k}" for k in range(len(self.s)) if self.by[k])]
        self.sums += [f"c_{j}_{k}" for j, k in self.cross]

    def value(self, scalar: Scalar | None) -> str:
        return "real(0)" if scalar is None else scalar.call(self.texts)

    def begin(self) -> list[str]:
        """The parameters in the kernel's precision; the channel of plane p of row r."""
        return [f"{p} = real({name})" for p, name in zip(self.p, self.d.parameters, strict=True)]

    def weights(self) -> list[str]:
        return [
            f"j = {'p * rows + r' if self.d.across else 'r * planes + p'}",
            "c = j % max(1, gamma.size)",
            "a = gamma[c] if gamma.size > 0 else real(1)",
            "b = beta[c] if gamma.size > 0 else real(0)",
        ]

    def shape(self) -> list[str]:
        order = "planes, rows, length" if self.d.across else "rows, planes, length"
        return [f"{order} = x.shape", "count = wide(planes * length)"]

    # -- one element ------------------------------------------------------------------------------------------

    def gradient_lines(self) -> list[str]:
        return [
            f"v = {self.value(self.d.normalize)}",
            "z = affine(v, a, b)",
            "g = epilogue_gradient(z, z, dy[i], e)",
        ]

    def sum_lines(self) -> list[str]:
        lines = ["t_beta += g", "t_gamma += g * v"]
        lines += [f"t_{k} += g * {self.value(by)}" for k, by in enumerate(self.by) if by]
        return lines + [f"c_{j}_{k} += {self.value(f)}" for (j, k), f in self.cross.items()]

    def input_line(self) -> str:
        terms = [f"a * g * {self.value(self.slope)}"] if self.slope else []
        terms += [f"q_{k} * {self.value(slope)}" for k, slope in enumerate(self.slopes) if slope]
        return f"dx[i] = {' + '.join(terms) or 'real(0)'}"

    def chain_lines(self) -> list[str]:
        """q_k = A_k / m from the rows' sums."""
        lines = []
        for k in range(len(self.s) - 1, -1, -1):
            terms = [f"g_{k}"] if self.by[k] else []
            terms += [f"a_{j} * (r_{j}_{i} / count)" for j, i in self.cross if i == k]
            lines.append(f"a_{k} = {' + '.join(terms) or 'wide(0)'}")
        return lines + [f"q_{k} = real(a_{k} / count)" for k in range(len(self.s))]

    def add_row(self) -> list[str]:
        lines = [f"g_{k} += wide(a) * wide(t_{k})" for k in range(len(self.s)) if self.by[k]]
        return lines + [f"r_{j}_{k} += wide(c_{j}_{k})" for j, k in self.cross]

    def row_names(self) -> list[str]:
        return [f"g_{k}" for k in range(len(self.s)) if self.by[k]] + [f"r_{j}_{k}" for j, k in self.cross]

    # -- CPU --------------------------------------------------------------------------------------------------

    def helper(self, name: str, arguments: list[str], lines: list[str], **flags: bool) -> Function:
        return text(f"{self.d.op}_{name}", arguments, lines, self.names, force=True, **flags)

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
            f"    y[i] = epilogue(affine({self.value(self.d.normalize)}, a, b), e)",
        ]
        out = self.helper("out_run", ["x", "y", *self.s, *self.p, "a", "b", "e"], lines)
        used[out.name] = out
        values = ", ".join([*self.s, *self.p])
        call = f"{out.name}(x{self.plane}, y{self.plane}, {values}, a, b, e)"
        row += ["for p in range(planes):", *indented([*self.weights(), call])]
        body = [*self.shape(), *self.begin(), "for r in prange(rows):", *indented(row)]
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
        call = (
            f"{slope.name}(x{self.plane}, dy{self.plane}, dx{self.plane}, {values}, {', '.join(q)}, a, b, e)"
        )
        row = [
            *(f"{s} = stats[r, {k}]" for k, s in enumerate(self.s)),
            *(f"{name} = wide(0)" for name in self.row_names()),
            "for p in range(planes):",
            *indented(plane),
            "if wanted:",
            *indented([*self.chain_lines(), "for p in range(planes):", *indented([*self.weights(), call])]),
        ]
        body = [
            *self.shape(),
            *self.begin(),
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

    def parameter_lines(self) -> list[str]:
        """dgamma[c] and dbeta[c] from part, whose row j belongs to channel j % C, in order."""
        return [
            "total, along = wide(0), wide(0)",
            "for j in range(c, part.shape[0], dgamma.size):",
            "    along += part[j, 0]",
            "    total += part[j, 1]",
            "dgamma[c] = real(along)",
            "dbeta[c] = real(total)",
        ]

    # -- CUDA -------------------------------------------------------------------------------------------------

    def strided(self, lines: list[str], arrays: tuple[str, ...]) -> list[str]:
        """Lines for the elements i of plane p, spread over the block."""
        local = [line for a in arrays for line in (f"{a} = {a}_all{self.plane}",)]
        return [*local, "for i in range(cu.threadIdx.x, length, cu.blockDim.x):", *indented(lines)]

    def forward_cuda(self) -> CudaKernel:
        row: list[str] = []
        for k, scalar in enumerate(self.statistics):
            row += ["total = wide(0)", "for p in range(planes):"]
            row += indented(self.strided([f"total += wide({self.value(scalar)})"], ("x",)))
            row += ["total = block_sum(total, scratch)", f"{self.s[k]} = real(total / count)"]
            row += ["if cu.threadIdx.x == 0:", f"    stats[r, {k}] = {self.s[k]}"]
        out = [f"y[i] = epilogue(affine({self.value(self.d.normalize)}, a, b), e)"]
        row += ["for p in range(planes):", *indented([*self.weights(), *self.strided(out, ("x", "y"))])]
        arguments = ["x_all", "y_all", "gamma", "beta", "stats", *self.d.parameters, "e"]
        return self.on_cuda("forward", arguments, row)

    def backward_cuda(self) -> CudaKernel:
        plane = [
            *self.weights(),
            *(f"{s} = real(0)" for s in self.sums),
            *self.strided([*self.gradient_lines(), *self.sum_lines()], ("x", "dy")),
            *self.add_row(),
            "total = block_sum(wide(t_beta), scratch)",
            "along = block_sum(wide(t_gamma), scratch)",
            "if cu.threadIdx.x == 0:",
            "    part[j, 0] = along",
            "    part[j, 1] = total",
        ]
        last = [
            *self.weights(),
            *self.strided([*self.gradient_lines(), self.input_line()], ("x", "dy", "dx")),
        ]
        row = [
            *(f"{s} = stats[r, {k}]" for k, s in enumerate(self.s)),
            *(f"{name} = wide(0)" for name in self.row_names()),
            "for p in range(planes):",
            *indented(plane),
            "if wanted:",
            *(f"    {name} = block_sum({name}, scratch)" for name in self.row_names()),
            *indented([*self.chain_lines(), "for p in range(planes):", *indented(last)]),
        ]
        arguments = ["x_all", "dy_all", "dx_all", "gamma", "beta", "stats", "part", "wanted"]
        return self.on_cuda("backward", [*arguments, *self.d.parameters, "e"], row)

    def on_cuda(self, kind: str, arguments: list[str], row: list[str]) -> CudaKernel:
        body = [
            "scratch = cu.shared.array(32, np.float64)",
            self.shape()[0].replace("x.shape", "x_all.shape"),
            self.shape()[1],
            *self.begin(),
            "for r in range(cu.blockIdx.x, rows, cu.gridDim.x):",
            *indented(row),
        ]
        return CudaKernel(text(f"{self.d.op}_{kind}", arguments, body, self.names))

    def parameters_cuda(self) -> CudaKernel:
        body = [
            "for c in range(cu.grid(1), dgamma.size, cu.gridsize(1)):",
            *indented(self.parameter_lines()),
        ]
        return CudaKernel(text(f"{self.d.op}_parameters", ["part", "dgamma", "dbeta"], body, self.names))


@cache
def normalization_kernels(declared: Declared) -> NormalizationKernels:
    w = Writer(declared)
    return NormalizationKernels(
        w.forward(), w.backward(), w.forward_cuda(), w.backward_cuda(), w.parameters_cuda()
    )
