"""CUDA kernels of a normalization over channels alone: x (O, P, L), a thread for each of the O * L columns of P.

Neighbouring threads read neighbouring elements of a channel. Formulas: normalization_writer.py.
"""

from functools import cache

from normcore.kernels import CudaKernel
from normcore.templates.declaration import indented, text
from normcore.templates.normalization_writer import CudaKernels, Declared, Writer

_BEGIN = ["outer, planes, length = x_all.shape", "count = wide(planes)"]
_PLACE = ["o = r // length", "i = r - o * length"]
_COLUMNS = ["for r in range(cu.grid(1), outer * length, cu.gridsize(1)):"]


class ColumnWriter(Writer):
    def each_plane(self, lines: list[str], arrays: tuple[str, ...]) -> list[str]:
        views = [f"{a} = {a}_all[o, p]" for a in arrays]
        return ["for p in range(planes):", *indented([*views, *self.weights(), *lines])]

    def weights(self) -> list[str]:
        return [
            "a = gamma[p] if gamma.size > 0 else real(1)",
            "b = beta[p] if gamma.size > 0 else real(0)",
        ]

    def saved(self) -> list[str]:
        return [f"{s} = stats[r, {k}]" for k, s in enumerate(self.s)]

    def forward_cuda(self) -> CudaKernel:
        column: list[str] = []
        for k, scalar in enumerate(self.statistics):
            add = [f"total += wide({self.value(scalar)})"]
            column += ["total = wide(0)", *self.each_plane(add, ("x",))]
            column += [f"{self.s[k]} = real(total / count)", f"stats[r, {k}] = {self.s[k]}"]
        out = [f"y[i] = epilogue(affine({self.value(self.d.normalize)}, a, b), e)"]
        column += self.each_plane(out, ("x", "y"))
        return self.columns("forward", ["x_all", "y_all", "gamma", "beta", "stats"], column)

    def backward_cuda(self) -> CudaKernel:
        sums = [f"g_{k} += wide(a * g * {self.value(by)})" for k, by in enumerate(self.by) if by]
        sums += [f"r_{j}_{k} += wide({self.value(f)})" for (j, k), f in self.cross.items()]
        column = [
            *self.saved(),
            *(f"{name} = wide(0)" for name in self.row_names()),
            *self.each_plane([*self.gradient_lines(), *sums], ("x", "dy")),
            *self.chain_lines(),
            *self.each_plane([*self.gradient_lines(), self.input_line()], ("x", "dy", "dx")),
        ]
        return self.columns("backward", ["x_all", "dy_all", "dx_all", "gamma", "beta", "stats"], column)

    def columns(self, kind: str, arguments: list[str], lines: list[str]) -> CudaKernel:
        body = [*_BEGIN, *self.begin(), *_COLUMNS, *indented([*_PLACE, *lines])]
        name = f"{self.d.op}_column_{kind}"
        return CudaKernel(text(name, [*arguments, *self.d.parameters, "e"], body, self.names))

    def parameters_cuda(self) -> CudaKernel:
        """A block for each channel."""
        element = [*_PLACE, *self.saved(), "x, dy = x_all[o, p], dy_all[o, p]", *self.gradient_lines()]
        channel = [
            *self.weights(),
            "total, along = wide(0), wide(0)",
            "for r in range(cu.threadIdx.x, outer * length, cu.blockDim.x):",
            *indented([*element, "total += wide(g)", "along += wide(g * v)"]),
            "total = block_sum(total, scratch)",
            "along = block_sum(along, scratch)",
            "if cu.threadIdx.x == 0:",
            "    dgamma[p] = real(along)",
            "    dbeta[p] = real(total)",
        ]
        body = [
            "scratch = cu.shared.array(32, np.float64)",
            *_BEGIN,
            *self.begin(),
            "for p in range(cu.blockIdx.x, planes, cu.gridDim.x):",
            *indented(channel),
        ]
        arguments = ["x_all", "dy_all", "gamma", "beta", "stats", "dgamma", "dbeta", *self.d.parameters, "e"]
        return CudaKernel(text(f"{self.d.op}_column_parameters", arguments, body, self.names))


@cache
def column_kernels(declared: Declared) -> CudaKernels:
    w = ColumnWriter(declared)
    return CudaKernels(w.forward_cuda(), w.backward_cuda(), w.parameters_cuda())
