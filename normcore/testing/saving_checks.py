"""The check that an op's parameters and state are all that it learns: written to a file and read back, it goes on alike."""

import pathlib
import tempfile
from dataclasses import replace

from normcore import weights_file
from normcore.testing.memory_checks import same_run
from normcore.testing.running import Case, Runner
from normcore.testing.tolerances import same_bits


def save_and_load(case: Case) -> str:
    """Saved after a training step and read into a layer of another seed, inference and the next step are the same bits.

    A random op's numbers belong to the seed, which a run's settings keep: its second layer has the same one.
    """
    trained = Runner(case, "float32")
    inputs = trained.cast(case.inputs())
    trained.run(inputs, training=True)
    seed = case.seed if case.op.stochastic else case.seed + 1
    fresh = Runner(replace(case, seed=seed), "float32")
    for array in fresh.own().values():
        array[...] = 0  # so that a random op's equal start proves nothing
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "weights.safetensors"
        weights_file.write(file, {name: trained.layer.device.to_host(a) for name, a in trained.own().items()})
        weights_file.assign(fresh.own(), weights_file.read(file), fresh.layer.device, str(file), "layer")
    trained.keep_state()
    fresh.keep_state()
    expected = trained.forward(inputs, training=False)
    for k, (a, b) in enumerate(zip(fresh.forward(inputs, training=False), expected, strict=True)):
        same_bits(f"output {k} in inference, saved and loaded", a, b)
    step = trained.run(inputs, training=True)
    dy = trained.dy(step.y[0].shape)
    same_run("a training step, saved and loaded", fresh.run(inputs, training=True, dy=dy), step)
    return f"{len(fresh.own())} arrays"
