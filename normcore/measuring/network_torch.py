"""A network's training step in PyTorch, to be timed beside ours: forward, loss, backward, clipping, optimizer."""

from collections.abc import Callable
from typing import Any

import numpy as np

from normcore.sequences import Sequences

FORMATS = ("channels_first", "channels_last")


def step(
    torch: Any, net: Any, x: np.ndarray | Sequences, targets: np.ndarray, format: str
) -> Callable[[], None]:
    """One call is one step on this batch, on the CPU, from the network's weights; the learning rate is 0.

    format: of images and of the weights of convolutions. Raises UsageError for what has no counterpart in PyTorch.
    """
    from normcore.interop.torch_network import TorchNetwork

    peer = TorchNetwork(net)
    for parameter in peer.parameters.values():
        parameter.data = _formatted(torch, parameter.data, format)
    optimizer, clip = peer.optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    wanted = torch.tensor(targets)
    if isinstance(x, Sequences):
        given: Any = Sequences(torch.tensor(x.x), torch.tensor(x.lengths))
    else:
        given = _formatted(torch, torch.tensor(np.asarray(x)), format)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        peer.loss(given, wanted).backward()
        clip()
        optimizer.step()

    run()
    return run


def _formatted(torch: Any, tensor: Any, format: str) -> Any:
    if format == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor
