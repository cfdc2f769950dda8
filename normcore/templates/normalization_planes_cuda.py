"""CUDA kernels of a normalization whose rows of statistics are planes of memory, a block for each row.

Formulas: normalization_writer.py.
"""

from functools import cache

from normcore.kernels import CudaKernel
from normcore.templates.declaration import indented, text
from normcore.templates.normalization_writer import CudaKernels, Declared, Writer

THREADS = 256  # of a block


class PlaneCudaWriter(Writer):
    def strided(self, lines: list[str], arrays: tuple[str, ...]) -> list[str]:
        """Lines for the elements i of plane p, spread over the block."""
        local = [line for a in arrays for line in (f"{a} = {a}_all{self.plane}",)]
        return [*local, "for i in range(cu.threadIdx.x, length, cu.blockDim.x):", *indented(lines)]

    def forward(self) -> CudaKernel:
        row: list[str] = []
        for k, scalar in enumerate(self.statistics):
            row += ["total = wide(0)", "for p in range(planes):"]
            row += indented(self.strided([f"total += wide({self.value(scalar)})"], ("x",)))
            row += ["total = block_sum(total, scratch)", f"{self.s[k]} = real(total / count)"]
            row += ["if cu.threadIdx.x == 0:", f"    stats[r, {k}] = {self.s[k]}"]
        out = [f"y[i] = epilogue(affine({self.value(self.normalize)}, a, b), e)"]
        row += ["for p in range(planes):", *indented([*self.weights(), *self.strided(out, ("x", "y"))])]
        arguments = ["x_all", "y_all", "gamma", "beta", "stats", *self.d.parameters, "e"]
        return self.on_cuda("forward", arguments, row)

    def backward(self) -> CudaKernel:
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

    def parameters(self) -> CudaKernel:
        body = [
            "for c in range(cu.grid(1), dgamma.size, cu.gridsize(1)):",
            *indented(self.parameter_lines()),
        ]
        return CudaKernel(text(f"{self.d.op}_parameters", ["part", "dgamma", "dbeta"], body, self.names))


@cache
def plane_cuda_kernels(declared: Declared) -> CudaKernels:
    w = PlaneCudaWriter(declared)
    return CudaKernels(w.forward(), w.backward(), w.parameters())
