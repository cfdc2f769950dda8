"""What all kernels of a normalization are written from: its scalar functions as text, for one element.

Arrays are planes of memory: x (R, P, L), where row r of P planes of L elements shares its statistics; (P, R, L) where
rows lie across the samples (`across`).

With f_k the statistics' functions, s_k = mean of f_k(x, s_1 .. s_(k-1)), v = normalize(x, s), z = gamma v + beta:
    A_k = sum of dz gamma dv/ds_k + sum over j > k of A_j * mean of df_j/ds_k        from the last to the first
    dx = dz gamma dv/dx + 1/m sum over k of A_k df_k/dx        dgamma = sum of dz v        dbeta = sum of dz
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.kernels import CudaKernel, inline
from normcore.kernels.streaming import STREAM_BLOCK, first_stop, leaves_cache, stack_block, stream_run
from normcore.kernels.warps import block_sum
from normcore.templates.declaration import Scalar


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
class CudaKernels:
    forward: CudaKernel
    backward: CudaKernel
    parameters: CudaKernel


class Writer:
    def __init__(self, declared: Declared):
        self.d = declared
        prepared = self.prepared
        self.statistics = tuple(map(prepared, declared.statistics))
        self.normalize = prepared(declared.normalize)
        self.s = [f"s_{k.name}" for k in declared.statistics]
        self.p = [f"p_{name}" for name in declared.parameters]
        self.statistic_names = dict(zip((k.name for k in declared.statistics), self.s, strict=True))
        self.texts = {
            **self.statistic_names,
            **dict(zip(declared.parameters, self.p, strict=True)),
            "x": "x[i]",
        }
        self.plane = "[p, r]" if declared.across else "[r, p]"

        def slope(of: Scalar, by: str) -> Scalar | None:
            found = of.derivative(by)
            return None if found is None else prepared(found)

        self.slopes = [slope(k, "x") for k in declared.statistics]
        self.slope = slope(declared.normalize, "x")
        self.by = [slope(declared.normalize, k.name) for k in declared.statistics]
        # df_j / ds_k for j > k, where it is not zero.
        self.cross = {
            (j, k): found
            for j, later in enumerate(declared.statistics)
            for k, earlier in enumerate(declared.statistics[:j])
            if (found := slope(later, earlier.name)) is not None
        }
        slopes = [f for f in (*self.slopes, self.slope, *self.by, *self.cross.values()) if f is not None]
        functions = [*self.statistics, self.normalize, *slopes]
        self.names: dict[str, Any] = {f.function.name: f.function for f in functions}
        self.names |= {"affine": affine, "block_sum": block_sum, "np": np, "STREAM_BLOCK": STREAM_BLOCK}
        self.names |= {"leaves_cache": leaves_cache, "first_stop": first_stop}
        self.names |= {"stack_block": stack_block, "stream_run": stream_run}
        self.sums = ["t_beta", "t_gamma", *(f"t_{k}" for k in range(len(self.s)) if self.by[k])]
        self.sums += [f"c_{j}_{k}" for j, k in self.cross]

    def prepared(self, scalar: Scalar) -> Scalar:
        """A function as these kernels have it."""
        return scalar

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

    def gradient_lines(self) -> list[str]:
        return [
            f"v = {self.value(self.normalize)}",
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
