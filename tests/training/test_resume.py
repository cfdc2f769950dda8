"""Going on from a checkpoint continues bit for bit; damaged and missing checkpoints are told apart."""

import json
import signal

import numpy as np
import pytest

from normcore.errors import DataError, UsageError
from normcore.training import checkpoint
from normcore.training.loop import Interrupted, Trainer
from normcore.training.observer import Observer
from normcore.training.run_folder import RunFolder

from . import small


class Stopper(Observer):
    """Sends Ctrl-C after a given step of the run."""

    def __init__(self, step: int):
        self.left = step
        self.notes: list[str] = []

    def step(self, progress):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)

    def note(self, message):
        self.notes.append(message)


def train(path, epochs=2, stop_after=0, resume=False, observer=None):
    run = RunFolder(path)
    path.mkdir(exist_ok=True)
    net = small.digits(epochs)
    trainer = Trainer(net, run=run, observer=observer or Stopper(stop_after))
    if resume:
        trainer.resume()
    trainer.fit()
    return net, trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody interrupted."""
    path = tmp_path_factory.mktemp("whole")
    net, _ = train(path)
    return {k: v.copy() for k, v in net.store.everything().items()}, RunFolder(path).read_metrics()


def comparable(metrics):
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in metrics]


@pytest.mark.parametrize("step", [5, 12, 17], ids=["in-epoch-1", "at-its-end", "in-epoch-2"])
def test_interrupted_run_goes_on_bit_for_bit(tmp_path, whole, step):
    path = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        train(path, stop_after=step)
    assert stopped.value.path.exists()
    net, _ = train(path, resume=True)
    for name, array in whole[0].items():
        assert np.array_equal(array, net.store.everything()[name]), name
    assert comparable(RunFolder(path).read_metrics()) == comparable(whole[1])


def test_two_runs_give_the_same_bits(tmp_path, whole):
    net, _ = train(tmp_path / "again")
    for name, array in whole[0].items():
        assert np.array_equal(array, net.store.everything()[name]), name


def test_threads_change_no_bit(tmp_path, whole):
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        net, _ = train(tmp_path / "one")
    finally:
        numba.set_num_threads(before)
    for name, array in whole[0].items():
        assert np.array_equal(array, net.store.everything()[name]), name


def test_a_finished_run_can_be_lengthened(tmp_path):
    path = tmp_path / "run"
    train(path, epochs=1)
    _, trainer = train(path, epochs=2, resume=True)
    assert trainer.epoch == 2
    assert [m["epoch"] for m in RunFolder(path).read_metrics()] == [1, 2]


def test_newest_two_and_the_best_are_kept(tmp_path):
    path = tmp_path / "run"
    train(path, epochs=4)
    names = sorted(p.name for p in (path / "checkpoints").glob("*.safetensors"))
    assert len([n for n in names if n.startswith("epoch-")]) == 2
    assert "best.safetensors" in names
    assert not list((path / "checkpoints").glob(".*"))  # no temporary files stay behind


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path):
    path = tmp_path / "run"
    train(path, epochs=2)
    newest = max((path / "checkpoints").glob("epoch-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    stopper = Stopper(0)
    _, trainer = train(path, epochs=2, resume=True, observer=stopper)
    assert any("damaged" in note and newest.name in note for note in stopper.notes)
    assert trainer.epoch == 2
    assert [m["epoch"] for m in RunFolder(path).read_metrics()] == [1, 2]


def test_no_usable_checkpoint_starts_over_and_says_so(tmp_path):
    path = tmp_path / "run"
    stopper = Stopper(0)
    train(path, epochs=1, resume=True, observer=stopper)
    assert any("from the beginning" in note for note in stopper.notes)


def test_reading_a_damaged_checkpoint_is_an_error(tmp_path):
    target = checkpoint.write(tmp_path, "epoch-0001", {"a": np.ones(3)}, {"epoch": 1})
    assert np.array_equal(checkpoint.read(target).arrays["a"], np.ones(3))
    target.with_suffix(".json").write_text(json.dumps({"epoch": 1}))
    with pytest.raises(DataError, match="damaged"):
        checkpoint.read(target)


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("mine")
    with pytest.raises(UsageError, match="--resume"):
        RunFolder.create("net", str(tmp_path / "run"))


def test_run_numbers_count_up(tmp_path):
    first = RunFolder.create("net", base=str(tmp_path))
    second = RunFolder.create("net", base=str(tmp_path))
    assert (first.path.name, second.path.name) == ("net-1", "net-2")
