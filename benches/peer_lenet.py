"""The network of examples/lenet-mnist.yaml in torch, for the side-by-side bench of a training step."""

import torch
from torch import nn


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(64 * 6 * 6, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.25),
        nn.Linear(128, 10),
    )


class TorchStep:
    """One training step: zero_grad, forward, cross_entropy, backward, SGD (foreach, torch's default) with item()."""

    def __init__(self, channels_last: bool) -> None:
        torch.manual_seed(0)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = lenet().to(memory_format=self.format)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        spared = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": spared, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
        self.loss = nn.CrossEntropyLoss()

    def __call__(self, x: torch.Tensor, targets: torch.Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.net(x.contiguous(memory_format=self.format)), targets)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())
