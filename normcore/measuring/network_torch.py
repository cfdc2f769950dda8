"""A network's forward and backward in PyTorch, op by op through what each op calls its counterpart (`in_torch`)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from normcore.errors import NormcoreError

FORMATS = ("channels_first", "channels_last")


class TorchStep:
    """The same net with the same weights. `call(format)` is one forward and backward, gradients of all parameters.

    Raises NormcoreError for an op that PyTorch does not have.
    """

    def __init__(self, torch: Any, net: Any, batch: int, x: np.ndarray):
        self.torch, self.net = torch, net
        self.graph = net._graph(batch)  # unfused, in logical shapes: PyTorch chooses for itself
        lacking = sorted(
            {n.op.name for n in self.graph.nodes if not (n.op.is_view or type(n.op).has_torch())}
        )
        if lacking:
            raise NormcoreError(f"--against torch: PyTorch has no counterpart for {', '.join(lacking)}")
        self.x = np.asarray(x)

    def call(self, format: str) -> Callable[[], Any]:
        """Raises whatever an op raises in PyTorch."""
        torch = self.torch
        arrays: dict[str, dict[str, Any]] = {}
        for node in self.graph.nodes:
            held = self.net.store.arrays(node.path, node.plan)
            host = {
                k: np.array(self.net.device.to_host(held[k]))
                for k in (*node.plan.parameters, *node.plan.state)
            }
            arrays[node.path] = {
                k: self._tensor(a, format, k in node.plan.parameters) for k, a in host.items()
            }
        parameters = [t for of in arrays.values() for t in of.values() if t.requires_grad]
        x = self._tensor(self.x, format, False)
        with torch.no_grad():
            dy = torch.rand_like(self.run(x, arrays))

        def step() -> Any:
            return torch.autograd.grad(self.run(x, arrays), parameters, dy, allow_unused=True)

        step()
        return step

    def _tensor(self, array: np.ndarray, format: str, learned: bool) -> Any:
        tensor = self.torch.tensor(array)
        if format == "channels_last" and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor.requires_grad_() if learned and array.dtype.kind == "f" else tensor

    def run(self, x: Any, arrays: Mapping[str, Mapping[str, Any]]) -> Any:
        """The net's output."""
        values = {id(self.graph.input): x}
        for node in self.graph.nodes:
            inputs = [values[id(v)] for v in node.inputs]
            if node.op.is_view:
                outputs: Any = inputs[0].reshape(node.outputs[0].tensor.shape)
            else:
                outputs = node.op.in_torch(self.torch, *inputs, training=True, **arrays[node.path])
            made = outputs if isinstance(outputs, tuple) else (outputs,)
            values.update({id(v): tensor for v, tensor in zip(node.outputs, made, strict=False)})
        return values[id(self.graph.output)]
