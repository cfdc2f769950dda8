"""The training step of examples/lenet-mnist.yaml beside the same net in torch, batch 64, interleaved in one run.

python -m pytest benches/test_training_step.py
"""

import pathlib

import numpy as np
import pytest

from normcore import Network, Trainer
from normcore.measuring.timer import interleave

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "lenet-mnist.yaml"
BATCH = 64


def test_training_step(benchmark, recorder):
    """Prints and records torch's time over ours, for torch's better memory format."""
    from peer_lenet import TorchStep

    torch.set_num_threads(2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 1, 28, 28)).astype(np.float32)
    targets = rng.integers(0, 10, BATCH)
    trainer = Trainer(Network.from_yaml(EXAMPLE))
    first, last = TorchStep(channels_last=False), TorchStep(channels_last=True)
    tx, tt = torch.from_numpy(x), torch.from_numpy(targets)
    for step in (lambda: trainer.step(x, targets), lambda: first(tx, tt), lambda: last(tx, tt)):
        for _ in range(5):
            step()
    timing = interleave(
        {
            "normcore": lambda: trainer.step(x, targets),
            "torch channels_first": lambda: first(tx, tt),
            "torch channels_last": lambda: last(tx, tt),
        },
        rounds=25,
        seconds=10,
    )
    better = min(("torch channels_first", "torch channels_last"), key=timing.median)
    low, ratio, high = timing.ratio(better, "normcore")
    benchmark.extra_info.update(
        {name: timing.median(name) for name in timing.rounds},
        better=better,
        torch_ratio=ratio,
        interval=[low, high],
        images_per_second=BATCH / timing.median("normcore"),
    )
    recorder.add("step of lenet-mnist.yaml beside torch", ratio=ratio, interval=[low, high], better=better)
    print(f"\nLeNet step, batch {BATCH}: {better} / normcore = {ratio:.2f} ({low:.2f} to {high:.2f})")
    benchmark.pedantic(trainer.step, args=(x, targets), rounds=20)
