"""`normcore bench`: its JSON, what it says about wrong kernels and bad input, saving and comparing."""

import json
import sys

import pytest

GOOD = '''
import normcore


@normcore.elementwise(source="none")
class tripled:
    """3 x"""

    def forward(x):
        return 3.0 * x

    def derivative(x, y):
        return 3.0


@normcore.hookimpl
def normcore_ops():
    return [tripled]
'''
KEYS = {
    "op", "direction", "dtype", "memory_format", "device", "shape", "median_s", "spread", "gb_per_s",
    "share_of_limit", "extra_bytes", "first_call_s", "cached_load_s", "dispatch_s", "correct",
}  # fmt: skip
QUICK = ("--seconds", "0.01", "--no-first-call", "--device", "cpu")


def test_json_has_a_machine_and_rows(normcore):
    found = normcore("bench", "relu", "--shape", "4x3x5x5", *QUICK, "--json", "--dtype", "float32,float64")
    assert found.status == 0, found.err
    document = json.loads(found.out)
    assert {"processor", "cores", "caches", "versions", "threading_layer", "limits"} <= set(
        document["machine"]
    )
    assert document["machine"]["limits"]["cpu"]["copy_gb_per_s"] > 0
    rows = document["rows"]
    assert [(r["direction"], r["dtype"]) for r in rows] == [
        ("forward", "float32"), ("backward", "float32"), ("forward", "float64"), ("backward", "float64"),
    ]  # fmt: skip
    for row in rows:
        assert set(row) >= KEYS
        assert row["correct"] is True and row["shape"] == [4, 3, 5, 5]
        assert row["median_s"] > 0 and row["extra_bytes"] == 0 and row["dispatch_s"] > 0


def test_the_table_fits(normcore):
    found = normcore("bench", "relu", "--shape", "4x3x5x5", *QUICK)
    assert found.status == 0, found.err
    assert all(len(line) <= 100 for line in found.out.splitlines())
    assert "forward" in found.out and "backward" in found.out and "GB/s" in found.out


def test_a_wrong_kernel_shows_wrong_and_no_time(normcore, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD.replace("return 3.0\n", "return 2.0\n"), encoding="utf-8")
    arguments = ("bench", "tripled", "--plugin", str(tmp_path / "mine.py"), "--shape", "4x60", *QUICK)
    found = normcore(*arguments)
    assert found.status == 1
    (line,) = (line for line in found.out.splitlines() if line.startswith("backward"))
    assert "WRONG" in line and " s" not in line.split("WRONG")[1]
    assert "WRONG: tripled backward" in found.out
    document = json.loads(normcore(*arguments, "--json").out)
    assert [row["correct"] for row in document["rows"]] == [True, False]
    assert document["rows"][1]["median_s"] is None


def test_first_calls_in_processes_of_their_own(normcore, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD, encoding="utf-8")
    arguments = (
        "--plugin",
        str(tmp_path / "mine.py"),
        "--shape",
        "4x60",
        "--seconds",
        "0.01",
        "--device",
        "cpu",
    )
    found = normcore("bench", "tripled", *arguments, "--first-call", "--json")
    assert found.status == 0, found.err
    for row in json.loads(found.out)["rows"]:
        assert row["first_call_s"] > 0 and row["cached_load_s"] > 0


def test_save_and_compare(normcore, tmp_path):
    arguments = ("bench", "relu", "--shape", "4x3x5x5", "--direction", "forward", *QUICK)
    assert normcore(*arguments, "--save", "before.json").status == 0
    document = json.loads((tmp_path / "before.json").read_text(encoding="utf-8"))
    row = document["rows"][0]
    found = normcore(*arguments, "--compare", "before.json", "--json")
    (compared,) = json.loads(found.out)["comparison"]
    assert compared["verdict"] in ("FASTER", "SLOWER", "SAME", "UNSURE")
    for key in ("median_s", "interval_s"):
        row[key] = [v / 1e6 for v in row[key]] if isinstance(row[key], list) else row[key] / 1e6
    (tmp_path / "before.json").write_text(json.dumps(document), encoding="utf-8")
    slower = normcore(*arguments, "--compare", "before.json", "--fail-on", "slower")
    assert slower.status == 1 and "SLOWER" in slower.out and "0 of 1 rows (0%) agree" in slower.out
    assert normcore(*arguments, "--compare", "before.json").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("leaky_rellu",), "did you mean 'leaky_relu'"),
        (("relu", "--shape", "4xq"), "32x96x55x55"),
        (("relu", "--sweep", "many"), "1k..1g"),
        (("relu", "--shape", "4x3", "--sweep", "1k..4k"), "expected one of them"),
        (("relu", "--device", "gpu"), "none of auto, cpu, cuda"),
        (("relu", "--dtype", "float23"), "did you mean 'float32'"),
        (("relu", "--fail-on", "slower"), "--compare"),
        (("relu", "--plot", "x.doc"), ".png"),
        (("relu", "--save", "nowhere/x.json"), "folder that exists"),
        (("batch_norm", "--shape", "7"), "does not take --shape 7"),
    ],
)
def test_bad_usage(normcore, arguments, words):
    found = normcore("bench", *arguments)
    assert found.status == 2
    assert words in found.err


def test_what_does_not_fit_into_memory_is_left_out_and_said(normcore):
    """Of it no first call is timed either: that would ask for the memory in another process."""
    found = normcore(
        "bench", "relu", "--shape", "10000000x1000000", "--direction", "forward", "--device", "cpu"
    )
    assert found.status == 1, found.err  # nothing was timed
    assert "left out: relu 10000000x1000000 needs about" in found.out and "smaller" in found.out


def test_a_compared_file_that_is_none(normcore, tmp_path):
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    found = normcore("bench", "relu", "--compare", "x.json")
    assert found.status == 1 and "bench --save" in found.err


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("torch", ("--against", "torch"), "normcore[peers]"),
        ("matplotlib", ("--plot", "x.png"), "normcore[plot]"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(normcore, monkeypatch, module, arguments, words):
    monkeypatch.setitem(sys.modules, module, None)
    found = normcore("bench", "relu", "--shape", "4x3", *QUICK, *arguments)
    assert found.status == 2
    assert words in found.err


def test_an_absent_gpu_is_said(normcore):
    from normcore.devices import cuda

    if cuda.missing() is None:
        pytest.skip("there is a GPU here")
    found = normcore("bench", "relu", "--device", "cuda")
    assert found.status == 2 and "--device cuda" in found.err


@pytest.mark.peers
def test_against_torch(normcore):
    pytest.importorskip("torch", reason="the extra `peers` brings torch")
    arguments = ("bench", "relu", "--shape", "4x3x5x5", *QUICK, "--against", "torch", "--no-torch-compile")
    document = json.loads(normcore(*arguments, "--json").out)
    for row in document["rows"]:
        low, high = row["torch_interval"]
        assert low <= row["torch_ratio"] <= high
        assert set(row["torch_seconds"]) == {"channels_first", "channels_last"}
