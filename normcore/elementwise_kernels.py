"""What elementwise ops are made of: scalar functions, chains of them, and the kernels generated from a chain.

A Chain is a sequence of scalar functions that runs as one pass over memory. Its gradient recomputes the inner values
from the chain's input, so that only the input is kept; a chain of one whose derivative uses y alone keeps y alone.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from normcore.elementwise_loop import pass_over_memory
from normcore.errors import PluginError
from normcore.kernels import CudaKernel, Kernel, Variant, packs
from normcore.kernels.function import Function
from normcore.kernels.packs import PACK_BYTES
from normcore.storage import array_dtype


@dataclass(frozen=True, eq=False)
class Scalars:
    """The scalar functions of one elementwise op, as source."""

    op: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    forward: Function
    derivatives: tuple[Function, ...]  # one for each input
    learned: tuple[tuple[str, Function], ...] = ()  # learnable parameters with the derivatives by them

    @cached_property
    def uses(self) -> frozenset[str]:
        """Which of "x" (any input) and "y" the derivatives read."""
        found: set[str] = set()
        for derivative in self.derivatives:
            names = {n.id for n in ast.walk(ast.parse(derivative.text)) if isinstance(n, ast.Name)}
            found |= ({"x"} if names & set(self.inputs) else set()) | ({"y"} if "y" in names else set())
        return frozenset(found)


@dataclass(frozen=True)
class Chain:
    """Scalar stages applied one after the other; only the first may have two inputs.

    knows: what the gradient starts from, "input" (all values are recomputed) or "output" (one stage, from y).
    """

    stages: tuple[Scalars, ...]
    knows: str = "input"

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.stages[0].inputs

    @property
    def uses(self) -> frozenset[str]:
        """What backward needs kept: {"x"}, {"y"}, both, or nothing."""
        return self.stages[0].uses if len(self.stages) == 1 else frozenset("x")

    @property
    def name(self) -> str:
        return "_".join(stage.op for stage in self.stages)


def _forward_lines(
    chain: Chain, first: Sequence[str]
) -> tuple[list[str], list[list[str]], dict[str, Function]]:
    """Lines that compute v1, v2, ... and, for each stage, its parameters' texts."""
    lines, parameters, names, offset = [], [], {}, 0
    for k, stage in enumerate(chain.stages):
        parameters.append([f"e[{offset + i}]" for i in range(len(stage.parameters))])
        offset += len(stage.parameters)
        inputs = list(first) if k == 0 else [f"v{k}"]
        names[stage.forward.name] = stage.forward
        lines.append(f"v{k + 1} = {stage.forward.name}({', '.join(inputs + parameters[-1])})")
    return lines, parameters, names


def _gradient_lines(
    chain: Chain, first: Sequence[str], output: str | None
) -> tuple[list[str], dict[str, Function]]:
    """Lines that turn g (the gradient of the chain's output) into g0, g1: the gradients of its inputs."""
    forward, parameters, names = _forward_lines(chain, first)
    used = dict(names)
    last = len(chain.stages)
    if last == 1 and (output is not None or "y" not in chain.uses):
        forward = []
        used = {}
    elif "y" not in chain.stages[-1].uses:
        forward = forward[:-1]
    lines = list(forward)
    for k in range(last - 1, -1, -1):
        stage = chain.stages[k]
        y = output if k == last - 1 and output is not None else f"v{k + 1}"
        if "y" not in stage.uses:
            y = "real(0)"
        inputs = list(first) if k == 0 else [f"v{k}"]
        for i, derivative in enumerate(stage.derivatives):
            used[derivative.name] = derivative
            target = f"g{i}" if k == 0 else "g"
            lines.append(f"{target} = g * {derivative.name}({', '.join([*inputs, y, *parameters[k]])})")
    return lines, used


def _function(name: str, arguments: str, lines: Sequence[str], names: Mapping[str, Any]) -> Function:
    body = "".join(f"    {line}\n" for line in lines)
    return Function(name, f"def {name}({arguments}):\n{body}", dict(names), typed=True)


@cache
def placeholders(chain: Chain | None) -> Mapping[str, Function]:
    """The functions `epilogue` and `epilogue_gradient` of a fused chain; the identity for None."""
    if chain is None:
        return {
            "epilogue": _function("epilogue", "v, e", ["return v"], {}),
            "epilogue_gradient": _function("epilogue_gradient", "z, y, g, e", ["return g"], {}),
        }
    lines, _, names = _forward_lines(chain, ["v"])
    forward = _function("epilogue", "v, e", [*lines, f"return v{len(chain.stages)}"], names)
    if chain.knows == "output":
        gradient_lines, gradient_names = _gradient_lines(chain, ["y"], "y")
    else:
        gradient_lines, gradient_names = _gradient_lines(chain, ["z"], None)
    gradient = _function("epilogue_gradient", "z, y, g, e", [*gradient_lines, "return g0"], gradient_names)
    return {"epilogue": forward, "epilogue_gradient": gradient}


@dataclass(frozen=True)
class ChainKernels:
    forward: Kernel
    backward: Kernel
    forward_cuda: Kernel
    backward_cuda: Kernel


@cache
def kernels(chain: Chain) -> ChainKernels:
    """The kernels of a chain that runs by itself, one pass over memory each way.

    forward(*inputs, y, e); backward(the arrays in chain.uses, dy, *input gradients, e); flat arrays.
    """
    inputs = list(chain.inputs)
    count = len(chain.stages)
    values = [f"{name}[i]" for name in inputs]
    lines, _, names = _forward_lines(chain, values)
    forward = [*lines, f"y[i] = v{count}"]
    kept = (inputs if "x" in chain.uses else []) + (["y"] if "y" in chain.uses else [])
    back_values = values if "x" in chain.uses else ["real(0)"] * len(inputs)
    gradient, back_names = _gradient_lines(chain, back_values, "y[i]" if "y" in chain.uses else None)
    backward = ["g = dy[i]", *gradient, *(f"d{name}[i] = g{k}" for k, name in enumerate(inputs))]
    gradients = [f"d{name}" for name in inputs]
    # The same for one element whose values stand in variables: CUDA threads hold several at once.
    one, one_names = _forward_lines(chain, inputs)[::2]
    back_one, back_one_names = _gradient_lines(
        chain,
        inputs if "x" in chain.uses else ["real(0)"] * len(inputs),
        "y" if "y" in chain.uses else None,
    )
    one = [*one, f"return v{count}"]
    back_one = ["g = dy", *back_one, f"return {', '.join(f'g{k}' for k in range(len(inputs)))}"]
    return ChainKernels(
        pass_over_memory(f"{chain.name}_forward", inputs, ["y"], forward, names),
        pass_over_memory(f"{chain.name}_backward", [*kept, "dy"], gradients, backward, back_names),
        ChainCudaKernel(f"{chain.name}_forward", inputs, ["y"], one, one_names),
        ChainCudaKernel(f"{chain.name}_backward", [*kept, "dy"], gradients, back_one, back_one_names),
    )


class ChainCudaKernel(CudaKernel):
    """A chain on CUDA: 16 bytes a load and a store where all arrays allow it, else element by element.

    How many elements that is, and whether they are converted, depends on how the arrays are stored: the text is
    written for each variant. read, written: names of arrays; one: the lines for one element, whose values have the
    names of the arrays they come from.
    """

    def __init__(
        self, name: str, read: list[str], written: list[str], one: list[str], names: Mapping[str, Any]
    ):
        self.read, self.written = read, written
        self.one = _function(f"{name}_one", f"{', '.join(read)}, e", one, names)
        super().__init__(Function(name, ""))  # its text comes with the variant

    def with_constants(self, **constants: Any) -> Kernel:
        raise PluginError(f"{self.__name__} is generated; it has no module-level names to replace")

    def text(self, variant: Variant) -> str:
        return self.written_out(self.entry(variant.storage or variant.dtype), variant)

    def entry(self, stored: str) -> Function:
        """The entry kernel for arrays stored so."""
        read, written, one = self.read, self.written, self.one.name
        lanes = PACK_BYTES // array_dtype(stored).itemsize
        body = [
            f"n, first, step = {written[0]}.size, cu.grid(1), cu.gridsize(1)",
            f"# {lanes} elements, 16 bytes, a load and a store where all arrays start at a multiple of 16 bytes.",
            f"packs = n // {lanes} if {' and '.join(f'aligned({a}, 0)' for a in [*read, *written])} else 0",
            "for k in range(first, packs, step):",
            f"    i = {lanes} * k",
        ]
        body += [f"    {', '.join(f'{a}_{j}' for j in range(lanes))} = load_pack({a}, i)" for a in read]
        for j in range(lanes):
            results = ", ".join(f"{a}_{j}" for a in written)
            body.append(f"    {results} = {one}({', '.join(f'{a}_{j}' for a in read)}, e)")
        for a in written:
            body.append(f"    store_pack({a}, i, ({', '.join(f'{a}_{j}' for j in range(lanes))}))")
        arguments = ", ".join(f"load_one({a}, i)" for a in read)
        body += [
            "# What is left, or all of it.",
            f"for i in range({lanes} * packs + first, n, step):",
            f"    {', '.join(f'{a}_0' for a in written)} = {one}({arguments}, e)",
            *(f"    store_one({a}, i, {a}_0)" for a in written),
        ]
        name = one.removesuffix("_one")
        return _function(
            name, f"{', '.join([*read, *written])}, e", body, {**packs.functions(), one: self.one}
        )
