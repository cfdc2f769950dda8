"""What an optimizer is: one scalar rule for one parameter, from which the kernels of both devices are made.

A step is one pass over the flat vectors of parameters, gradients and the optimizer's slots. Clipping, weight decay
and per-parameter rates are part of the pass, so every vector is read and written once.
"""

from dataclasses import field
from functools import cache
from typing import Any, ClassVar

from normcore.component import Component
from normcore.errors import ParameterError, PluginError
from normcore.kernels import CudaKernel, Kernel, inline
from normcore.kernels.function import Function, Inline

CHUNK = 16384  # elements a task takes


class Optimizer(Component):
    """Base of optimizers.

    slots: names of the vectors it keeps, zero at the start; the empty tuple for none.
    rule: an @inline function of one element,
            rule(p, g, <a value of each slot>, decay, lr, c) -> (new p, <new value of each slot>)
        with p the parameter, g its gradient after clipping, decay its weight decay, lr its learning rate, and c the
        numbers that constants() gives. Without slots it returns the new p alone.
    constants(step): the rule's numbers; steps count from 1.

    An optimizer that no scalar rule can say overrides update_cpu(t) and update_cuda(t), which change t.p in place
    from t.g and t.<slot>: chunk k is elements t.starts[k] .. t.stops[k], decayed by t.decays[k], moved at
    t.rates[k] times t.lr; t.scale multiplies every gradient (clipping by global norm) and t.limit bounds it.

    no_decay: parameters that weight_decay leaves alone, by array name ("bias") or by a pattern of the path
    ("conv1.*").
    """

    kind: ClassVar[str] = "optimizer"
    slots: ClassVar[tuple[str, ...]] = ()
    torch_name: ClassVar[str] = ""  # the class of torch.optim with the same parameters
    rule: ClassVar[Inline]
    lr: float = 0.1
    weight_decay: float = field(default=0.0, kw_only=True)
    no_decay: tuple[str, ...] = field(default=(), kw_only=True)

    def check(self) -> None:
        if not self.lr >= 0:
            raise ParameterError("lr", "a number >= 0", self.lr)
        if not self.weight_decay >= 0:
            raise ParameterError("weight_decay", "a number >= 0", self.weight_decay)

    def constants(self, step: int) -> tuple[float, ...]:
        return (0.0,)

    def in_torch(self, torch: Any, groups: Any) -> Any:
        """The same optimizer in PyTorch (torch: the module) for parameter groups that bring their weight_decay."""
        if not self.torch_name:
            raise PluginError(f"optimizer {self.name!r} names no counterpart in PyTorch (torch_name)")
        values = {k: v for k, v in self.hyperparameters().items() if k not in ("weight_decay", "no_decay")}
        return getattr(torch.optim, self.torch_name)(groups, **values)

    def update_cpu(self, t: Any) -> None:
        forward, _ = kernels(self.name, self.rule, tuple(self.slots))
        forward[t](*self._arguments(t))

    def update_cuda(self, t: Any) -> None:
        _, forward = kernels(self.name, self.rule, tuple(self.slots))
        forward[t, (t.starts.size, 256)](*self._arguments(t))

    def _arguments(self, t: Any) -> tuple[Any, ...]:
        slots = (getattr(t, slot) for slot in self.slots)
        constants = tuple(map(t.scalar, self.constants(t.step)))
        return (t.p, t.g, *slots, t.starts, t.stops, t.decays, t.rates, t.scale, t.limit, t.lr, constants)


@inline
def clipped(g, scale, limit):
    """A gradient's element after clipping by norm (scale) and by value (limit)."""
    v = g * scale
    v = limit if v > limit else v
    return -limit if v < -limit else v


@cache
def kernels(name: str, rule: Inline, slots: tuple[str, ...]) -> tuple[Kernel, CudaKernel]:
    """The kernels (CPU, CUDA) that apply a rule: (p, g, *slots, starts, stops, decays, rates, scale, limit, lr, c)."""
    arrays = ["p", "g", *slots]
    written = ", ".join(f"{a}[i]" for a in arrays if a != "g")
    values = "".join(f"{slot}[i], " for slot in slots)
    element = f"{written} = rule(p[i], clipped(g[i], scale, limit), {values}decay, rate, c)"
    head = f"{', '.join(arrays)}, starts, stops, decays, rates, scale, limit, lr, c"
    names = {"rule": rule, "clipped": clipped}
    helper = _function(
        f"{name}_slice",
        f"{', '.join(arrays)}, scale, limit, decay, rate, c",
        ["for i in range(p.size):", f"    {element}"],
        names,
    )
    cpu = [
        "for k in prange(starts.size):",
        "    lo = starts[k]",
        "    hi = stops[k]",
        f"    {name}_slice({', '.join(f'{a}[lo:hi]' for a in arrays)}, scale, limit, decays[k], lr * rates[k], c)",
    ]
    cuda = [  # one block a chunk
        "k = cu.blockIdx.x",
        "decay = decays[k]",
        "rate = lr * rates[k]",
        "for i in range(starts[k] + cu.threadIdx.x, stops[k], cu.blockDim.x):",
        f"    {element}",
    ]
    return (
        Kernel(_function(f"{name}_step", head, cpu, {f"{name}_slice": helper})),
        CudaKernel(_function(f"{name}_step", head, cuda, names)),
    )


def _function(name: str, arguments: str, lines: list[str], names: dict[str, Any]) -> Function:
    body = "".join(f"    {line}\n" for line in lines)
    return Function(name, f"def {name}({arguments}):\n{body}", names, typed=True)


def below_one(name: str, value: float) -> None:
    """ParameterError unless value is a share that a moving average can keep."""
    if not 0 <= value < 1:
        raise ParameterError(name, "a number from 0 to below 1", value)
