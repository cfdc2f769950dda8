"""train, eval, predict and warm on a network of three kernels: folders, resuming, interrupting, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TRAIN = ("train", "net.yaml", "--device", "cpu")

# Sends Ctrl-C to the process in the third step, once.
CTRL_C = """
import signal
import normcore

@normcore.hookimpl
def normcore_step_end(step):
    if step == 3:
        signal.raise_signal(signal.SIGINT)
"""

PLUGIN = """
import normcore

@normcore.elementwise
class twice:
    "y = 2 x"
    def forward(x): return 2.0 * x
    def derivative(x, y): return 2.0

@normcore.hookimpl
def normcore_ops(): return [twice]
"""


def test_a_run_from_beginning_to_end(normcore: Any) -> None:
    found = normcore(*TRAIN, "--seed", "5")
    assert found.status == 0
    assert "epoch 1/1" in found.out and "images/s" in found.out and "done: 1 epoch in" in found.out
    run = Path("runs/tiny-1")
    assert (run / "checkpoints" / "best.safetensors").is_file()
    (metrics,) = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert {"epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy"} <= set(metrics)
    assert {"learning_rate", "seconds", "images_per_second"} <= set(metrics)
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["seed"] == 5
    assert "seed: 5" in (run / "config.yaml").read_text(encoding="utf-8")

    evaluated = json.loads(normcore("eval", run, "--device", "cpu", "--json").out)
    assert evaluated["test_accuracy"] == metrics["test_accuracy"]
    assert evaluated["test_loss"] == pytest.approx(metrics["test_loss"])
    assert "test: accuracy" in normcore("eval", run, "--device", "cpu").out

    Image.fromarray(np.full((28, 28), 7, np.uint8)).save("digit.png")
    np.save("digit.npy", np.full((28, 28), 7, np.uint8))
    answers = json.loads(normcore("predict", run, "digit.png", "digit.npy", "--device", "cpu", "--json").out)
    assert [a["file"] for a in answers] == ["digit.png", "digit.npy"]
    assert sum(answers[0]["probabilities"]) == pytest.approx(1.0)
    assert answers[0]["probabilities"] == answers[1]["probabilities"]
    assert answers[0]["probability"] == max(answers[0]["probabilities"])
    assert "digit.png: class" in normcore("predict", run, "digit.png", "--device", "cpu").out

    Path("text.png").write_text("no image", encoding="utf-8")
    bad = normcore("predict", run, "text.png", "--device", "cpu")
    assert bad.status == 1
    assert "text.png is no readable image" in bad.err
    Path("text.npy").write_text("no array", encoding="utf-8")
    bad = normcore("predict", run, "text.npy", "--device", "cpu")
    assert bad.status == 1
    assert "text.npy is no readable .npy file" in bad.err and "allow_pickle" not in bad.err


def test_runs_are_numbered_and_out_is_not_overwritten(normcore: Any) -> None:
    assert normcore(*TRAIN).status == normcore(*TRAIN).status == 0
    assert Path("runs/tiny-2").is_dir()
    found = normcore(*TRAIN, "--out", "runs/tiny-1")
    assert found.status == 2
    assert "exists already" in found.err and "--resume" in found.err


def test_json_output_is_only_json(normcore: Any) -> None:
    found = normcore(*TRAIN, "--json")
    answer = json.loads(found.out)
    assert answer["metrics"]["epoch"] == 1
    assert Path(answer["run"]).is_dir()
    assert "epoch 1/1" in found.err


def test_interrupting_and_resuming(normcore: Any) -> None:
    Path("stop.py").write_text(CTRL_C, encoding="utf-8")
    found = normcore(*TRAIN, "--out", "a", "--plugin", "stop.py", "--epochs", "2")
    assert found.status == 130
    assert "interrupted; checkpoint" in found.err
    assert "go on with: normcore train --out a --resume --device cpu --plugin stop.py" in found.err
    assert "stop.py" in Path("a/environment.json").read_text(encoding="utf-8")

    from normcore.registry import default

    default.cache_clear()
    assert normcore("train", "--out", "a", "--resume", "--device", "cpu").status == 0
    assert normcore(*TRAIN, "--out", "b", "--epochs", "2").status == 0
    for name in ("best", "epoch-0002-000000"):
        resumed, whole = (Path(run, "checkpoints", f"{name}.safetensors").read_bytes() for run in "ab")
        assert resumed == whole  # bit for bit


def test_lengthening_a_finished_run(normcore: Any) -> None:
    assert normcore(*TRAIN, "--out", "a").status == 0
    found = normcore(*TRAIN, "--out", "a", "--resume", "--epochs", "2")
    assert found.status == 0
    assert len(Path("a/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert normcore("train", "--out", "a", "--resume", "--device", "cpu").status == 0  # nothing is left to do


def test_resuming_with_other_settings_lists_them(normcore: Any) -> None:
    assert normcore(*TRAIN, "--out", "a").status == 0
    found = normcore(
        *TRAIN, "--out", "a", "--resume", "--set", "optimizer.sgd.lr=0.5", "--set", "data.batch_size=250"
    )
    assert found.status == 2
    assert "data.batch_size: 500, now 250" in found.err
    assert "optimizer.sgd.lr: 0.1, now 0.5" in found.err


def test_resuming_what_is_not_there(normcore: Any) -> None:
    found = normcore(*TRAIN, "--out", "fresh", "--resume")
    assert found.status == 0
    assert "training starts from the beginning" in found.err
    assert normcore(*TRAIN, "--resume").status == 2
    assert normcore("train", "--out", "absent", "--resume").status == 2
    Path("other").mkdir()
    Path("other/thing").touch()
    found = normcore(*TRAIN, "--out", "other", "--resume")
    assert found.status == 2
    assert "expected a run's folder" in found.err


def test_a_damaged_checkpoint_is_called_damaged(normcore: Any) -> None:
    assert normcore(*TRAIN, "--out", "a").status == 0
    for name in ("best", "epoch-0001-000000"):
        path = Path("a/checkpoints", f"{name}.safetensors")
        path.write_bytes(path.read_bytes()[:-8])
    found = normcore("eval", "a", "--device", "cpu")
    assert found.status == 1
    assert "damaged" in found.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--set", "train.epoch=3"], 2, "train has no key 'epoch'; did you mean 'epochs'?"),
        (["--set", "data={source: npz, path: absent.npz}"], 1, "absent.npz"),
        (["--set", "network.0={max_pool: 40}"], 2, "max_pool1 does not fit behind input"),
        (["--set", "network.0={max_pool: 14}"], 1, "the network ends in 4 classes"),
        (["--set", "train.clip_grad_norm=1", "--set", "network=[relu]"], 2, "(N, classes)"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    normcore: Any, arguments: list[str], status: int, message: str
) -> None:
    found = normcore(*TRAIN, *arguments)
    assert found.status == status
    assert message in found.err
    assert "Traceback" not in found.err
    assert "runs/" not in found.out  # nor is a folder announced
    assert not Path("runs").exists()


def test_a_sequence_of_padding_only_is_named_before_anything_compiles(
    normcore: Any, monkeypatch: Any
) -> None:
    from normcore.training import loop

    monkeypatch.setattr(loop, "warm_up", lambda *_: pytest.fail("compiled"))
    x = np.ones((9, 4, 2), np.float32)
    x[7] = 0
    np.savez("s.npz", x_train=x, y_train=np.arange(9) % 2, x_test=x[:3], y_test=np.arange(3) % 2)
    text = """
name: s
data: {source: npz, path: s.npz, layout: as_is, batch_size: 3}
network: [{lstm: {hidden_size: 2, padding_value: 0.0}}]
loss: cross_entropy
"""
    Path("s.yaml").write_text(text, encoding="utf-8")
    found = normcore("train", "s.yaml", "--device", "cpu")
    assert found.status == 1
    assert (
        "training sample 7 (counted from 0) holds only padding (padding_value 0.0), as lstm1 sees it"
        in found.err
    )
    assert not list(Path().glob("runs/*"))


def test_sequences_of_different_lengths_from_training_to_predict(normcore: Any) -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((12, 5, 2)), rng.integers(1, 6, 12)
    train = {"x_train": x, "y_train": np.arange(12) % 2, "lengths_train": lengths}
    np.savez("s.npz", **train, x_test=x[:4], y_test=np.arange(4) % 2, lengths_test=lengths[:4])
    text = """
name: s
data: {source: npz, path: s.npz, batch_size: 6, normalize: standardize}
network: [{gru: {hidden_size: 2}, inputs: [input, lengths]}]
loss: cross_entropy
train: {epochs: 1}
"""
    Path("s.yaml").write_text(text, encoding="utf-8")
    assert normcore("train", "s.yaml", "--device", "cpu", "--out", "r").status == 0
    evaluated = normcore("eval", "r", "--device", "cpu", "--json")
    assert evaluated.status == 0 and json.loads(evaluated.out)["samples"] == 4
    np.save("short.npy", x[0, :3])
    (said,) = json.loads(normcore("predict", "r", "short.npy", "--device", "cpu", "--json").out)
    assert len(said["probabilities"]) == 2 and abs(sum(said["probabilities"]) - 1) < 1e-6
    np.save("long.npy", np.zeros((6, 2)))
    found = normcore("predict", "r", "long.npy", "--device", "cpu")
    assert found.status == 1
    assert (
        "long.npy has shape (6, 2); the net's input is a sequence of 1 to 5 steps of 2 features" in found.err
    )
    found = normcore("train", "s.yaml", "--device", "cpu", "--set", "network.0.inputs=[input]")
    assert found.status == 1
    assert (
        "no layer of the network reads them; give the recurrent layers `inputs: [input, lengths]`"
        in found.err
    )


def test_sequences_of_one_length_are_asked_for_by_layout(normcore: Any) -> None:
    """Arrays (N, T, C) look like grey images; the net that reads sequences says what to do."""
    x, y = np.zeros((8, 5, 2), np.float32), np.arange(8) % 2
    np.savez("s.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    text = (
        "name: s\ndata: {source: npz, path: s.npz}\nnetwork: [{gru: {hidden_size: 2}}]\nloss: cross_entropy\n"
    )
    Path("s.yaml").write_text(text, encoding="utf-8")
    found = normcore("lint", "s.yaml")
    assert found.status == 2
    assert "`reshape: [5, 2]` before it reads them row by row" in found.err
    assert "are sequences with `data.layout: sequences`" in found.err
    assert normcore("lint", "s.yaml", "--set", "data.layout=sequences").status == 0


def test_cuda_without_a_gpu_says_what_is_missing(normcore: Any) -> None:
    from normcore.devices import cuda

    if cuda.missing() is None:
        pytest.skip("a GPU is here")
    found = normcore("train", "net.yaml", "--device", "cuda")
    assert found.status == 2
    assert found.err.startswith("error: --device cuda:")


def test_a_run_remembers_its_plugin_files(normcore: Any) -> None:
    from normcore.registry import default

    Path("mine.py").write_text(PLUGIN, encoding="utf-8")
    trained = normcore(*TRAIN, "--out", "a", "--set", "network.2=twice", "--plugin", "mine.py")
    assert trained.status == 0
    assert trained.out.splitlines()[-1] == "next: normcore eval a --device cpu --plugin mine.py"
    default.cache_clear()
    found = normcore("eval", "a", "--device", "cpu")
    assert found.status == 2
    assert "unknown op 'twice'" in found.err
    assert (
        f"this run was trained with --plugin {Path('mine.py').resolve()}; if you trust it, give it again"
        in found.err
    )
    Path("mine.py").write_text(PLUGIN + "# changed\n", encoding="utf-8")
    found = normcore("eval", "a", "--device", "cpu", "--plugin", "mine.py")
    assert found.status == 0
    assert "mine.py has changed since the run was trained" in found.err


def test_warm(normcore: Any) -> None:
    answer = json.loads(normcore("warm", "net.yaml", "--device", "cpu", "--json").out)
    assert set(answer) == {"compiled", "loaded", "seconds"}
    found = normcore("warm", "net.yaml", "--device", "cpu")
    assert found.status == 0
    assert "tiny on cpu:" in found.out


def test_the_best_figure_counts_what_population_statistics_bring(capsys: Any, tmp_path: Path) -> None:
    from normcore_cli.progress import PlainDisplay
    from normcore_cli.train_command import _finish

    from normcore.training.run_folder import RunFolder

    run = RunFolder.create("r", str(tmp_path / "r"))
    run.append_metrics({"epoch": 1, "test_accuracy": 0.5})
    _finish(run, {"epoch": 1, "test_accuracy": 0.75}, PlainDisplay(), False, 1.0, "")
    assert "test accuracy 0.7500, best 0.7500 (epoch 1)" in capsys.readouterr().out


def test_a_discarded_run_takes_away_only_the_folders_made_for_it(tmp_path: Path) -> None:
    from normcore.training.run_folder import RunFolder

    (tmp_path / "mine").mkdir()
    RunFolder.create("r", str(tmp_path / "mine" / "new" / "r")).discard()
    assert not list((tmp_path / "mine").iterdir())
    first, second = (RunFolder.create("r", base=str(tmp_path / "runs")) for _ in range(2))
    first.discard()
    assert second.path.is_dir()
