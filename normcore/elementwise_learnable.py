"""Elementwise ops with learnable parameters: each is one number for the whole layer, an array of shape (1,).

Declared by @elementwise(learnable=("alpha",)): the class's field `alpha` is its first value (the layer's `alpha_init`
goes before it), and beside the derivative by x stands derivative_alpha(x, y, *parameters), or it is derived.
    dalpha = sum over all elements of dy * df/dalpha
Sums run in chunks of CHUNK elements in the kernel's own precision; chunks are added in float64, in order: the same
bits for any number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from normcore.elementwise_kernels import Scalars
from normcore.elementwise_loop import CHUNK
from normcore.elementwise_ops import ElementwiseOp
from normcore.kernels import CudaKernel, Kernel
from normcore.kernels.function import Function
from normcore.kernels.warps import block_sum
from normcore.op import Array, Plan, Tensor

THREADS = 256  # of a CUDA block, which takes a chunk


class LearnableElementwise(ElementwiseOp):
    """Base of the ops that @elementwise makes of classes with learnable parameters."""

    is_elementwise: ClassVar[bool] = False  # it sums: it is not fused, and takes one kind of element only
    stores_16_bits: ClassVar[bool] = False
    definition: ClassVar[Any]

    @property
    def backward_needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("x",)

    @property
    def _scalars(self) -> Scalars:
        return self.stages()[0][0]

    def plan(self, *inputs: Tensor) -> Plan:
        size = inputs[0].size
        parameters = {
            name: Array((1,), init={"constant": {"value": float(getattr(self, name))}})
            for name in self.learnable
        }
        partial = Array((len(self.learnable), max(1, -(-size // CHUNK))), "float64")
        shape = super().plan(*inputs).y
        return Plan(y=shape, parameters=parameters, workspace={"partial": partial}, flops=size)

    def forward_cpu(self, t: Any) -> None:
        self._forward(t, learnable_kernels(self._scalars).forward[t])

    def forward_cuda(self, t: Any) -> None:
        if t.y.size:
            self._forward(t, learnable_kernels(self._scalars).forward_cuda[t, t.y.size])

    def backward_cpu(self, t: Any) -> None:
        if self._empty(t):
            return
        self._backward(t, learnable_kernels(self._scalars).backward[t])
        learnable_kernels(self._scalars).total[t](t.partial, *self._gradients(t))

    def backward_cuda(self, t: Any) -> None:
        if self._empty(t):
            return
        kernels = learnable_kernels(self._scalars)
        self._backward(t, kernels.backward_cuda[t, (t.partial.shape[1], THREADS)])
        kernels.total_cuda[t, (1, THREADS)](t.partial, *self._gradients(t))

    def _forward(self, t: Any, launch: Any) -> None:
        launch(*self._inputs(t), t.y.reshape(-1), *self._given(t))

    def _empty(self, t: Any) -> bool:
        """Whether there is nothing to sum; the gradients are 0 then."""
        if not t.dy.size:
            for gradient in self._gradients(t):
                gradient.fill(0)
        return not t.dy.size

    def _backward(self, t: Any, launch: Any) -> None:
        gradients = [getattr(t, "d" + name) for name in self.inputs]
        wanted = [g is not None for g in gradients]
        arrays = [(t.dy if g is None else g).reshape(-1) for g in gradients]
        launch(*self._inputs(t), t.dy.reshape(-1), *arrays, *wanted, t.partial, *self._given(t))

    def _given(self, t: Any) -> list[Any]:
        """The parameters as kernels take them: arrays and numbers."""
        return [
            getattr(t, name) if name in self.learnable else float(getattr(self, name))
            for name in self._scalars.parameters
        ]

    def _gradients(self, t: Any) -> list[Any]:
        return [getattr(t, "d" + name) for name in self.learnable]

    def reference(self, *inputs: Any, **arrays: Any) -> Any:
        """The op's own reference, or its scalar function run as plain Python."""
        given = {**self.hyperparameters(), **{name: arrays[name][0] for name in self.learnable}}
        if self.reference_function is not None:
            return self.reference_function(*inputs, **given)
        python = self._scalars.forward
        parameters = [float(given[name]) for name in self._scalars.parameters]
        flat = zip(*(np.asarray(a, np.float64).reshape(-1).tolist() for a in inputs), strict=True)
        return np.array([_finite(python, *v, *parameters) for v in flat]).reshape(inputs[0].shape)

    def in_torch(self, torch: Any, *inputs: Any, training: bool, **arrays: Any) -> Any:
        if self.torch_function is None:
            return super().in_torch(torch, *inputs, training=training, **arrays)
        given = {**self.hyperparameters(), **{name: arrays[name] for name in self.learnable}}
        return self.torch_function(torch, *inputs, **given)


def _finite(function: Function, *arguments: float) -> float:
    try:
        return float(function(*arguments))
    except OverflowError:
        return float("inf")
    except (ZeroDivisionError, ValueError):
        return float("nan")


@dataclass(frozen=True)
class LearnableKernels:
    forward: Kernel
    backward: Kernel
    total: Kernel
    forward_cuda: CudaKernel
    backward_cuda: CudaKernel
    total_cuda: CudaKernel


@cache
def learnable_kernels(scalars: Scalars) -> LearnableKernels:
    """forward(*inputs, y, *parameters); backward(*inputs, dy, *gradients, *wanted, partial, *parameters);
    total(partial (parameters, chunks), *parameter gradients). Flat arrays."""
    inputs, name = list(scalars.inputs), scalars.op
    learned = [key for key, _ in scalars.learned]
    gradients, wanted = [f"d{i}" for i in inputs], [f"wanted_{i}" for i in inputs]
    numbers = [f"{p}[0]" if p in learned else f"real({p})" for p in scalars.parameters]
    values, parameters = [f"{i}[k]" for i in inputs], [f"p_{p}" for p in scalars.parameters]

    def call(function: Function, *more: str) -> str:
        return f"{function.name}({', '.join([*values, *more, *parameters])})"

    # One element: its lines stand in a loop over k, on either device.
    forward_line = f"y[k] = {call(scalars.forward)}"
    back_lines = ["g = dy[k]", f"v = {call(scalars.forward)}"]
    for gradient, want, function in zip(gradients, wanted, scalars.derivatives, strict=True):
        back_lines += [f"if {want}:", f"    {gradient}[k] = g * {call(function, 'v')}"]
    back_lines += [f"s{j} += g * {call(f, 'v')}" for j, (_, f) in enumerate(scalars.learned)]
    used = {f.name: f for f in (scalars.forward, *scalars.derivatives, *(f for _, f in scalars.learned))}
    zeros = [f"s{j} = real(0)" for j in range(len(learned))]
    set_parameters = [f"{p} = {number}" for p, number in zip(parameters, numbers, strict=True)]

    def loop(kind: str, arrays: list[str], flags: list[str], lines: list[str], sums: bool) -> Kernel:
        results = [f"return {', '.join(f's{j}' for j in range(len(learned)))}"] if sums else []
        run = _text(
            f"{name}_{kind}_run",
            [*arrays, *flags, *parameters],
            [*zeros, f"for k in range({arrays[-1]}.size):", *(f"    {x}" for x in lines), *results],
            used,
            reassociate=sums,
        )
        slices = ", ".join([*(f"{a}[lo:hi]" for a in arrays), *flags, *parameters])
        target = ", ".join(f"partial[{j}, chunk]" for j in range(len(learned))) + " = " if sums else ""
        entry = [
            *set_parameters,
            f"n = {arrays[-1]}.size",
            f"for chunk in prange((n + {CHUNK - 1}) // {CHUNK}):",
            f"    lo = chunk * {CHUNK}",
            f"    hi = min(n, lo + {CHUNK})",
            f"    {target}{run.name}({slices})",
        ]
        extra = ["partial"] if sums else []
        return Kernel(
            _text(f"{name}_{kind}", [*arrays, *flags, *extra, *scalars.parameters], entry, {run.name: run})
        )

    back_arrays = [*inputs, "dy", *gradients]
    strided = [
        "scratch = cu.shared.array(32, np.float64)",
        *set_parameters,
        f"for chunk in range(cu.blockIdx.x, (dy.size + {CHUNK - 1}) // {CHUNK}, cu.gridDim.x):",
        *(f"    {z}" for z in zeros),
        f"    for k in range(chunk * {CHUNK} + cu.threadIdx.x, "
        f"min(dy.size, chunk * {CHUNK} + {CHUNK}), cu.blockDim.x):",
        *(f"        {x}" for x in back_lines),
    ]
    totals, totals_cuda = [], ["scratch = cu.shared.array(32, np.float64)"]
    for j, key in enumerate(learned):
        strided += [
            f"    total{j} = block_sum(wide(s{j}), scratch)",
            "    if cu.threadIdx.x == 0:",
            f"        partial[{j}, chunk] = total{j}",
        ]
        totals += [
            f"total{j} = wide(0)",
            "for chunk in range(partial.shape[1]):",
            f"    total{j} += partial[{j}, chunk]",
            f"d{key}[0] = real(total{j})",
        ]
        totals_cuda += [
            f"total{j} = wide(0)",
            "for chunk in range(cu.threadIdx.x, partial.shape[1], cu.blockDim.x):",
            f"    total{j} += partial[{j}, chunk]",
            f"total{j} = block_sum(total{j}, scratch)",
            "if cu.threadIdx.x == 0:",
            f"    d{key}[0] = real(total{j})",
        ]
    total_arguments = ["partial", *(f"d{key}" for key in learned)]
    on_cuda = {**used, "block_sum": block_sum, "np": np}
    forward_cuda = [
        *set_parameters,
        "for k in range(cu.grid(1), y.size, cu.gridsize(1)):",
        f"    {forward_line}",
    ]
    return LearnableKernels(
        loop("forward", [*inputs, "y"], [], [forward_line], sums=False),
        loop("backward", back_arrays, wanted, back_lines, sums=True),
        Kernel(_text(f"{name}_total", total_arguments, totals, {})),
        CudaKernel(_text(f"{name}_forward", [*inputs, "y", *scalars.parameters], forward_cuda, used)),
        CudaKernel(
            _text(
                f"{name}_backward",
                [*back_arrays, *wanted, "partial", *scalars.parameters],
                strided,
                on_cuda,
            )
        ),
        CudaKernel(_text(f"{name}_total", total_arguments, totals_cuda, on_cuda)),
    )


def _text(
    name: str,
    arguments: Sequence[str],
    lines: Sequence[str],
    names: dict[str, Any],
    reassociate: bool = False,
) -> Function:
    body = "".join(f"    {line}\n" for line in lines)
    return Function(
        name, f"def {name}({', '.join(arguments)}):\n{body}", names, typed=True, reassociate=reassociate
    )
