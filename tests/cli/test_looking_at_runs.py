"""eval, predict, plot and time: what they print of a run, and what they say about bad data."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CPU = ("--device", "cpu")
NET = """\
name: pets
input: [3, 12, 12]
data: {source: images, path: pets, batch_size: 5}
network: [{max_pool: {kernel_size: 4, stride: 4}}, flatten, batch_norm, {dense: 2}]
train: {epochs: 2}
"""


def folder(root: str, size: int = 12, count: int = 5, classes: tuple[str, ...] = ("ant", "bee")) -> None:
    """Bright ants, dark bees."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for k, name in enumerate(classes):
            place = Path(root, part, name)
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (size, size, 3)) + 150 * (k == 0)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")


@pytest.fixture
def run(normcore: Any) -> Any:
    """The command line, in a folder with a trained run `run`."""
    folder("pets")
    Path("pets.yaml").write_text(NET, encoding="utf-8")
    found = normcore("train", "pets.yaml", "--out", "run", *CPU)
    assert found.status == 0, found.err
    return normcore


def test_eval_class_by_class(run: Any) -> None:
    found = json.loads(run("eval", "run", *CPU, "--json").out)
    confusion = np.array(found["test_confusion"])
    assert confusion.shape == (2, 2) and confusion.sum() == 10
    assert found["test_accuracy"] == np.trace(confusion) / 10
    assert found["test_top5_accuracy"] is None  # of two classes
    assert [c["name"] for c in found["test_classes"]] == ["ant", "bee"]
    assert [c["accuracy"] for c in found["test_classes"]] == [confusion[k, k] / 5 for k in range(2)]
    text = run("eval", "run", *CPU).out
    assert "0 ant" in text and "rows: true classes, columns: answers" in text


def test_eval_of_many_classes_names_the_worst() -> None:
    from normcore_cli.eval_command import _worst

    from normcore.training.scores import Scores

    scores = Scores(30)
    scores.add(np.eye(30)[np.r_[0:29, 3]], np.arange(30))  # class 29 is taken for class 3
    lines = _worst(scores, None).splitlines()
    assert lines[0].startswith("the 10 worst classes; --json has all 30")
    assert lines[2].split() == ["29", "1", "0.000", "3", "(1", "times)"]


def test_ten_crop(run: Any) -> None:
    refused = run("eval", "run", *CPU, "--ten-crop")
    assert refused.status == 2 and "no corners" in refused.err
    folder("large", size=16)
    found = run("eval", "run", *CPU, "--ten-crop", "--json", "--set", f"data.path={Path('large').resolve()}")
    assert found.status == 0, found.err
    answer = json.loads(found.out)
    assert answer["views"] == 10 and answer["test_loss"] is None
    assert np.sum(answer["test_confusion"]) == 10
    assert (
        "10 views of each image"
        in run("eval", "run", *CPU, "--ten-crop", "--set", f"data.path={Path('large').resolve()}").out
    )


def test_predict_searches_folders(run: Any) -> None:
    shutil.copytree("pets/test", "in/deep/down")
    np.save("in/array.npy", np.full((12, 12, 3), 7, np.uint8))
    Path("in/notes.txt").write_text("hello", encoding="utf-8")
    Path("in/.hidden.txt").write_text("hello", encoding="utf-8")
    found = run("predict", "run", "in", "pets/test/ant/0.png", *CPU, "--top", "1", "--json")
    assert found.status == 0
    answers = json.loads(found.out)
    names = [str(Path(a["file"])) for a in answers]
    assert names[0] == str(Path("in/array.npy")) and names[-1] == str(Path("pets/test/ant/0.png"))
    assert len(names) == 12 and names[:-1] == sorted(names[:-1])
    assert all(len(a["top"]) == 1 and a["top"][0]["name"] == a["name"] for a in answers)
    assert found.err.count("skipped") == 1 and "notes.txt" in found.err
    text = run("predict", "run", "pets/test/ant/0.png", *CPU).out
    assert "ant (class 0)" in text and "bee (class 1)" in text

    named = run("predict", "run", "in/notes.txt", *CPU)
    assert named.status == 1 and "notes.txt is no readable image" in named.err
    Path("empty").mkdir()
    assert "it is empty" in run("predict", "run", "empty", *CPU).err
    assert "no such file or folder" in run("predict", "run", "absent", *CPU).err


def test_predict_answers_what_it_can_and_names_the_rest(run: Any) -> None:
    Path("notes.txt").write_text("hello", encoding="utf-8")
    found = run("predict", "run", "notes.txt", "pets/test/ant/0.png", "absent", *CPU, "--json")
    assert found.status == 1
    assert [a["file"] for a in json.loads(found.out)] == ["pets/test/ant/0.png"]
    assert (
        "error: notes.txt is no readable image" in found.err
        and "error: absent: there is no such" in found.err
    )
    neither = run("predict", "run", "notes.txt", "absent", *CPU)
    assert neither.status == 1 and neither.err.count("error: ") == 2 and not neither.out


def test_plot(run: Any, monkeypatch: Any) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` brings matplotlib")
    assert run("train", "pets.yaml", "--out", "other", "--epochs", "1", *CPU).status == 0
    assert run("plot", "run", "--out", "one.png").status == 0
    with Image.open("one.png") as picture:
        assert picture.size == (1650, 660)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert run("plot", "run", "other", "--out", "two.svg").status == 0
    assert "</svg>" in Path("two.svg").read_text(encoding="utf-8")
    assert ".png or .svg" in run("plot", "run", "--out", "one.gif").err
    Path("run/metrics.jsonl").unlink()
    assert "no epoch is finished" in run("plot", "run", "--out", "one.png").err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = run("plot", "other", "--out", "one.png")
    assert found.status == 2 and 'pip install "normcore[plot]"' in found.err


def test_time(run: Any) -> None:
    found = run("time", "pets.yaml", *CPU, "--batch", "4", "--seconds", "0.05", "--json")
    assert found.status == 0, found.err
    answer = json.loads(found.out)
    layers = {row["layer"]: row for row in answer["layers"]}
    assert list(layers) == ["max_pool1", "flatten1", "batch_norm1", "dense1"]
    assert layers["flatten1"]["view"] and layers["flatten1"]["forward_s"] is None
    assert layers["max_pool1"]["backward_s"] is None  # nobody wants the image's gradient
    dense = layers["dense1"]
    assert dense["forward_flops"] > 0 and dense["backward_flops"] == 2 * dense["forward_flops"]
    assert dense["forward_bytes"] == 4 * (4 * 27 + 4 * 2 + 2 * 27 + 2)
    assert dense["forward_kernels"] and dense["backward_kernels"]
    parts = answer["forward_s"] + answer["backward_s"] + answer["loss_s"] + answer["optimizer_s"]
    assert 0 < parts < 3 * answer["step_s"]
    assert sum(row["share"] for row in answer["layers"]) < 1.5
    text = run("time", "pets.yaml", *CPU, "--batch", "4", "--seconds", "0.05").out
    assert "batch_norm1" in text and "samples/s" in text and "kernels of" in text


def test_time_on_two_devices(run: Any, monkeypatch: Any) -> None:
    from normcore_cli import options

    short = ("time", "pets.yaml", "--batch", "4", "--seconds", "0.05")
    found = run(*short, "--device", "gpu")
    assert found.status == 2 and "'gpu' is none of auto, cpu, cuda" in found.err
    found = run(*short, "--device", "cuda", "--against", "torch")
    assert found.status != 0
    monkeypatch.setattr(
        options, "devices", lambda names, every: ("cpu", "cpu")
    )  # the second stands for a GPU
    found = run(*short, "--device", "cpu,cuda", "--json")
    assert found.status == 0, found.err
    first, second = json.loads(found.out)["devices"]
    assert first["step_s"] > 0 and second["step_s"] > 0 and len(first["layers"]) == len(second["layers"]) == 4
    text = run(*short, "--device", "cpu,cuda").out
    assert text.count("samples/s") == 2 and " x as fast as cpu's" in text


@pytest.mark.peers
def test_time_beside_torch(run: Any) -> None:
    pytest.importorskip("torch", reason="the extra `peers` brings torch")
    found = run(
        "time", "pets.yaml", *CPU, "--batch", "4", "--seconds", "0.05", "--against", "torch", "--json"
    )
    assert found.status == 0, found.err
    torch = json.loads(found.out)["torch"]
    assert set(torch["seconds"]) == {"channels_first", "channels_last"} and torch["ratio"] > 0


@pytest.mark.filterwarnings("default:.*skipped, as data.bad_images says")
def test_bad_images(run: Any) -> None:
    folder("bad")
    broken = Path("bad/train/bee/3.png")
    broken.write_bytes(broken.read_bytes()[:60])
    bad = ("train", "pets.yaml", *CPU, "--set", "data.path=bad", "--epochs", "1")
    found = run(*bad)
    assert found.status == 1 and str(broken) in found.err and "data.bad_images: skip" in found.err
    found = run(*bad, "--set", "data.bad_images=skip")
    assert found.status == 0 and f"warning: {broken.resolve()} is no readable image" in found.err
    for file in Path("bad/train/ant").iterdir():
        file.write_bytes(b"no image")
    found = run(*bad, "--set", "data.bad_images=skip")
    assert found.status == 1 and "no image of this class can be read" in found.err
    shutil.rmtree("bad/train/ant")
    Path("bad/train/ant").mkdir()
    found = run(*bad)
    assert found.status == 1 and "is a class folder without images" in found.err


X, Y = np.random.default_rng(1).random((10, 12, 12, 3), np.float32), np.arange(10) % 2
BAD_ARRAYS = {
    "fewer labels": ({"y_train": Y[:7]}, "y_train holds 7 labels, x_train 10 samples"),
    "channels": ({"x_train": X[..., :1], "x_test": X[..., :1]}, "input: [1, 12, 12]"),
    "classes": ({"y_train": np.arange(10) % 5}, "labels go up to 4, but the network ends in 2 classes"),
    "not finite": ({"x_train": np.where(X > 0.999, np.nan, X)}, "hold NaN or infinity"),
    "length 0": ({"x_train": X[:, :0], "x_test": X[:, :0]}, "its samples are empty"),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_bad_arrays(normcore: Any, fault: str) -> None:
    changes, message = BAD_ARRAYS[fault]
    np.savez("bad.npz", **{"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, **changes})
    Path("pets.yaml").write_text(NET, encoding="utf-8")
    found = normcore("train", "pets.yaml", *CPU, "--set", "data={source: npz, path: bad.npz}")
    assert found.status == 1 and message in found.err
    assert not list(Path().glob("runs/*/metrics.jsonl"))


def test_weights_of_another_net(run: Any) -> None:
    """Every array that does not fit is listed, whoever reads it."""
    found = run("eval", "run", *CPU, "--set", "network.3.dense=5", "--set", "network.0.max_pool.stride=2")
    assert found.status == 1
    for line in (
        "dense1.weight: shape (2, 27), this network has (5, 75)",
        "dense1.bias: shape (2,), this network has (5,)",
        "batch_norm1.gamma: shape (27,), this network has (75,)",
        "batch_norm1.running_var: shape (27,), this network has (75,)",
    ):
        assert line in found.err
    found = run("train", "pets.yaml", "--out", "run", "--resume", *CPU, "--set", "network.3.dense=5")
    assert found.status == 2 and "network.3.dense: 2, now 5" in found.err
    assert "expected a run's folder" in run("eval", "pets", *CPU).err
