"""A whole network in PyTorch: each layer by its op's counterpart there (Op.in_torch), autograd for the gradients.

For comparing, and for taking a trained network elsewhere. What is compared is PyTorch's own arithmetic, not our kernels
(normcore.interop.torch.Module runs those).
"""

from collections.abc import Callable
from typing import Any

from normcore.errors import ShapeError, UsageError
from normcore.graph.build import build
from normcore.network import Network
from normcore.sequences import Sequences
from normcore.training.optimizer_binding import matches

try:
    import torch
except ImportError as fault:
    raise ImportError(
        f'normcore.interop.torch_network needs PyTorch, which cannot be imported ({fault}): pip install "normcore[peers]"'
    ) from fault

PLANNED_BATCH = 2  # what the layers are planned for; they run with any batch


class TorchNetwork:
    """The layers of a Network, run by PyTorch.

    parameters, state: dicts "<layer>.<array>" -> tensor, copies of the network's arrays as they are now; parameters
    require gradients. A layer that draws random numbers draws PyTorch's.

    Raises UsageError naming every layer whose op has no counterpart in PyTorch.
    """

    def __init__(self, net: Network, device: Any = "cpu"):
        self.config, self.sample_shape = net.config, net.sample_shape
        graph = build(net.config.network, net.sample_shape, PLANNED_BATCH, net.dtype)
        self.nodes, self.input, self.lengths, self.output = (
            graph.nodes,
            graph.input,
            graph.lengths,
            graph.output,
        )
        lacking = [f"{node.path} ({node.op.name})" for node in self.nodes if not node.op.has_torch()]
        if lacking:
            raise UsageError(
                f"no counterpart in PyTorch for {', '.join(lacking)}; give the op a method in_torch, or leave the layer out"
            )

        def tensor(array: Any) -> Any:
            return torch.tensor(net.device.to_host(array), device=device)

        self.parameters = {k: tensor(v).requires_grad_() for k, v in net.parameters.items()}
        self.state = {k: tensor(v) for k, v in net.state.items()}

    def forward(self, x: Any, training: bool = False) -> Any:
        """The output (N, ...) for an input (N, *sample_shape), a tensor of the network's dtype.

        For a network that reads lengths: Sequences of two tensors.
        """
        if isinstance(x, Sequences) != (self.lengths is not None):
            raise ShapeError("expected Sequences for a network that reads lengths, a tensor for any other")
        if tuple(x.shape[1:]) != self.sample_shape:
            raise ShapeError(
                f"expected an input of shape (N, {', '.join(map(str, self.sample_shape))}), got {tuple(x.shape)}"
            )
        values: dict[int, Any] = {id(self.input): x}
        if isinstance(x, Sequences):
            values = {id(self.input): x.x, id(self.lengths): x.lengths}
        readers = {id(v): k for k, node in enumerate(self.nodes) for v in node.inputs}
        for k, node in enumerate(self.nodes):
            arrays = {name: self.parameters[f"{node.path}.{name}"] for name in node.plan.parameters}
            arrays.update((name, self.state[f"{node.path}.{name}"]) for name in node.plan.state)
            inputs = [values[id(v)] for v in node.inputs]
            try:
                found = node.op.in_torch(torch, *inputs, training=training, **arrays)
            except NotImplementedError as reason:
                raise UsageError(f"no counterpart in PyTorch for {node.path}: {reason}") from None
            outputs = found if isinstance(found, tuple) else (found,)
            for value, made in zip(node.outputs, outputs, strict=True):
                values[id(value)] = made
            for value in node.inputs:
                if readers[id(value)] == k:
                    values.pop(id(value), None)
        return values[id(self.output)]

    def loss(self, x: Any, targets: Any, training: bool = True) -> Any:
        """The batch mean of the configured loss, a tensor to call backward() on."""
        return self.config.loss.in_torch(torch, self.forward(x, training), targets)

    def gradients(self, x: Any, targets: Any) -> tuple[float, dict[str, Any]]:
        """The loss of a training batch and its gradient to every parameter, by path; zeros where there is none."""
        loss = self.loss(x, targets)
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        pairs = zip(self.parameters.items(), found, strict=True)
        return loss.item(), {k: torch.zeros_like(p) if g is None else g for (k, p), g in pairs}

    def optimizer(self) -> tuple[Any, Callable[[], None]]:
        """The configured optimizer in PyTorch, and a function that clips gradients as the configuration says.

        Raises UsageError for an optimizer without a counterpart, and for a configuration with frozen layers.
        """
        optimizer, train = self.config.optimizer, self.config.train
        if self.config.start_from is not None:
            raise UsageError(
                "start_from freezes layers and scales rates; that has no counterpart in PyTorch here"
            )
        decayed: list[Any] = []
        spared: list[Any] = []
        for path, parameter in self.parameters.items():
            (spared if any(matches(path, p) for p in optimizer.no_decay) else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": optimizer.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        made = optimizer.in_torch(torch, [g for g in groups if g["params"]])

        def clip() -> None:
            parameters = list(self.parameters.values())
            if train.clip_grad_value is not None:
                torch.nn.utils.clip_grad_value_(parameters, train.clip_grad_value)
            if train.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, train.clip_grad_norm)

        return made, clip
