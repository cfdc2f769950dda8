"""Weights of another run: what does not fit is listed, all of it."""

import re

import numpy as np
import pytest

from normcore.errors import UsageError
from normcore.network import Network
from normcore.training.loop import Trainer
from normcore.training.observer import Observer
from normcore.training.optimizer_binding import OptimizerBinding
from normcore.training.run_folder import RunFolder
from normcore.training.start import mismatches


def test_every_array_that_does_not_fit_is_listed():
    own = {"conv.weight": np.zeros((4, 3)), "head.weight": np.zeros((3, 4)), "head.bias": np.zeros(3)}
    theirs = {"conv.weight": np.ones((4, 3)), "head.weight": np.zeros((2, 4)), "old.bias": np.zeros(2)}
    assert mismatches(theirs, own) == [
        "head.weight: (3, 4) here, (2, 4) in the file",
        "head.bias: (3,) here, not in the file",
        "old.bias: (2,) in the file, not here",
    ]
    assert mismatches(own, own) == []


def test_what_fits_in_part_is_noted_with_shapes(tmp_path):
    old = {"input": [6], "network": [{"dense": 4}, "relu", {"dense": 2}, "relu", {"dense": 2}], "loss": "mse"}
    run = RunFolder.create("old", str(tmp_path / "old"))
    run.write_config("name: old\n")
    trainer = Trainer(Network.from_mapping(old), run=run)
    trainer.step(np.ones((2, 6), np.float32), np.ones((2, 2), np.float32))
    trainer.save(best=True)
    new = {
        **old,
        "network": [{"dense": 4}, "relu", {"dense": 3}],
        "start_from": {"run": str(tmp_path / "old")},
    }
    notes = []
    observer = Observer()
    observer.note = notes.append
    started = Trainer(Network.from_mapping(new), observer=observer)
    assert np.array_equal(started.net.parameters["dense1.weight"], trainer.net.parameters["dense1.weight"])
    (note,) = notes
    assert note.splitlines()[0].startswith("start_from: 2 of this network's 4 arrays are from")
    assert note.splitlines()[1:] == [
        "  dense2.weight: (3, 4) here, (2, 4) in the file",
        "  dense2.bias: (3,) here, (2,) in the file",
        "  dense3.weight: (2, 2) in the file, not here",
        "  dense3.bias: (2,) in the file, not here",
    ]


def test_a_pattern_that_matches_nothing_is_named():
    net = Network.from_mapping({"input": [6], "network": [{"dense": 2}], "loss": "mse"})
    for pattern in ("conv*", "densse1"):
        with pytest.raises(UsageError, match=re.escape(f"{pattern!r} matches no parameter")):
            OptimizerBinding(net.config.optimizer, net.store, net.device, {pattern: 0.0})
