"""Training steps of the example networks, beside torch where a peer is written; images a second.

python -m pytest benches/test_networks.py [--save-results FILE]. The step of lenet-mnist.yaml beside torch is in
test_training_step.py.
"""

import pathlib

import numpy as np
import pytest

from normcore import Network, NormcoreError, Trainer
from normcore.measuring.timer import interleave

SMALL, LARGE = 8, 64  # batches: of photographs, of small images
EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_training_step(benchmark, recorder, example):
    """Forward, loss, backward and the optimizer's step on one batch, kernels compiled."""
    try:
        net = Network.from_yaml(example)
    except NormcoreError as fault:
        pytest.skip(f"{example.name}: {fault}")
    trainer = Trainer(net)
    batch = min(net.declared_batch or LARGE, SMALL if net.sample_shape[-1] > 64 else LARGE)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.sample_shape)).astype(np.float32)
    targets = rng.integers(0, 2, batch)
    trainer.step(x, targets)
    timing = interleave({"step": lambda: trainer.step(x, targets)}, rounds=15, seconds=5)
    low, high = timing.interval("step")
    found = {"batch": batch, "step_s": timing.median("step"), "interval_s": [low, high]}
    found["images_per_second"] = batch / found["step_s"]
    benchmark.extra_info.update(found)
    recorder.add(f"step of {example.name}", **found)
    benchmark.pedantic(trainer.step, args=(x, targets), rounds=5)
