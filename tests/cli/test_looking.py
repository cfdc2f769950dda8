"""Commands that only look: lint, summary, ops, plugins, schema."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
import normcore

@normcore.elementwise(source="nobody 2024")
class twice:
    "y = 2 x"
    factor: float = 2.0
    def forward(x, factor): return factor * x
    def derivative(x, y, factor): return factor

@normcore.hookimpl
def normcore_ops(): return [twice]
"""


def test_lint(normcore: Any) -> None:
    found = normcore("lint", "net.yaml")
    assert (found.status, found.out) == (0, "net.yaml: no problems (3 layers)\n")
    assert json.loads(normcore("lint", "net.yaml", "--json").out) == {"ok": True, "problems": []}


def test_lint_lists_every_problem(normcore: Any) -> None:
    Path("bad.yaml").write_text(
        "data: {source: mnist_sample}\nnetwork: [rleu, {relu: 3}]\n", encoding="utf-8"
    )
    found = normcore("lint", "bad.yaml")
    assert found.status == 2
    assert found.err.splitlines() == [
        "bad.yaml:2:11: unknown op 'rleu'; did you mean 'relu'?",
        "bad.yaml:2:24: relu takes no parameters, got 3; write it alone",
        "2 problems",
    ]
    answer = normcore("lint", "bad.yaml", "--json")
    assert answer.status == 2
    assert [(p["line"], p["column"]) for p in json.loads(answer.out)["problems"]] == [(2, 11), (2, 24)]


def test_lint_finds_shapes_that_do_not_fit(normcore: Any) -> None:
    found = normcore("lint", "net.yaml", "--set", "network.0={max_pool: 40}")
    assert found.status == 2
    assert "max_pool1 does not fit behind input" in found.err


def test_lint_finds_an_output_that_the_loss_does_not_take(normcore: Any) -> None:
    found = normcore("lint", "net.yaml", "--set", "network=[batch_norm]", "--json")
    assert found.status == 2
    (problem,) = json.loads(found.out)["problems"]
    assert problem["file"] == "net.yaml"
    assert "cross_entropy: expected an output of shape (N, classes)" in problem["message"]


def test_lint_finds_mixed_targets_that_the_loss_does_not_take(normcore: Any) -> None:
    mixed = ("--set", "data.augment=[{mixup: {alpha: 0.2}}]")
    assert normcore("lint", "net.yaml", *mixed).status == 0
    found = normcore("lint", "net.yaml", *mixed, "--set", "loss=hinge")
    assert found.status == 2
    assert "hinge takes class numbers" in found.err


def test_lint_gives_json_of_missing_data_too(normcore: Any) -> None:
    found = normcore("lint", "net.yaml", "--set", "data={source: npz, path: none.npz}", "--json")
    assert found.status == 1
    assert "there is no such file" in json.loads(found.out)["problems"][0]["message"]


def test_summary(normcore: Any) -> None:
    found = normcore("summary", "net.yaml", "--device", "cpu")
    assert found.status == 0
    assert "tiny: input [1, 28, 28], batch 500, float32 on cpu" in found.out
    assert "batch_norm1" in found.out and "500x16" in found.out and "32 parameters" in found.out
    answer = json.loads(normcore("summary", "net.yaml", "--device", "cpu", "--batch", "2", "--json").out)
    assert [layer["op"] for layer in answer["layers"]] == ["max_pool", "flatten", "batch_norm"]
    assert answer["layers"][-1]["output_shape"] == [2, 16]
    assert {"parameters", "flops", "activation_bytes", "memory_format", "fused"} <= set(answer["layers"][0])
    assert answer["parameters"] == 32


def test_ops(normcore: Any) -> None:
    found = normcore("ops")
    assert found.status == 0
    assert "batch_norm" in found.out
    listed = json.loads(normcore("ops", "--json").out)
    assert [op["name"] for op in listed] == sorted(op["name"] for op in listed)
    shown = normcore("ops", "show", "bn").out
    assert shown.startswith("batch_norm (bn)")
    assert "eps = 1e-05  (float)" in shown and "1502.03167" in shown and "xhat" in shown
    unknown = normcore("ops", "show", "batchnorm")
    assert unknown.status == 2
    assert "did you mean 'batch_norm'?" in unknown.err


def test_every_ops_kernels_can_be_shown(normcore: Any) -> None:
    for device in ("cpu", "cuda"):
        shown = normcore("ops", "show", "gelu", "--kernel", device)
        assert shown.status == 0
        # The author's comments are there, and both directions.
        assert "# 2 sqrt(2/pi), times 0.044715" not in shown.out  # the other form of gelu
        assert "# d/dt of -t Q(t), with its sign turned" in shown.out
        assert "# -- gelu forward: gelu_forward" in shown.out and "def gelu_backward(" in shown.out
    assert "load_pack(x, i)" in shown.out
    listed = json.loads(normcore("ops", "show", "batch_norm", "--kernel", "cpu", "--json").out)
    assert {k["direction"] for k in listed} == {"forward", "backward"}
    assert all(f"def {k['kernel']}" in k["text"] or f"def _{k['kernel']}" in k["text"] for k in listed)
    assert "launches no kernel of its own" in normcore("ops", "show", "flatten", "--kernel", "cpu").out


def test_an_op_is_drawn(normcore: Any) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` brings matplotlib")
    shown = normcore("ops", "show", "relu6", "--plot", "relu6.png")
    assert shown.status == 0, shown.err
    assert shown.out == "relu6.png: relu6, value and derivative for x from -8 to 8\n"
    assert Path("relu6.png").read_bytes().startswith(b"\x89PNG")
    assert normcore("ops", "show", "threshold", "--plot", "threshold.svg").status == 0
    assert "<svg" in Path("threshold.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("batch_norm", "x.png", "only elementwise ops of one input can be drawn"),
        ("add", "x.png", "only elementwise ops of one input can be drawn"),
        ("elu", "x.pdf", "ending in .png or .svg"),
        ("elu", "nowhere/x.png", "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_says_so(normcore: Any, name: str, file: str, said: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` brings matplotlib")
    shown = normcore("ops", "show", name, "--plot", file)
    assert shown.status == 2 and said in shown.err


def test_drawing_without_matplotlib_says_how_to_get_it(normcore: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    shown = normcore("ops", "show", "elu", "--plot", "elu.png")
    assert shown.status == 2 and 'pip install "normcore[plot]"' in shown.err


def test_plugin_files(normcore: Any) -> None:
    Path("mine.py").write_text(PLUGIN, encoding="utf-8")
    shown = normcore("ops", "show", "twice", "--plugin", "mine.py").out
    assert "y = 2 x" in shown and "return factor * x" in shown and "nobody 2024" in shown
    listed = json.loads(normcore("plugins", "list", "--plugin", "mine.py", "--json").out)
    mine = next(plugin for plugin in listed if plugin["name"] == "mine")
    assert mine["brings"] == {"op": ["twice"]} and len(mine["sha256"]) == 64
    assert normcore("lint", "net.yaml", "--set", "network.2=twice", "--plugin", "mine.py").status == 0
    missing = normcore("ops", "--plugin", "absent.py")
    assert missing.status == 2
    assert "absent.py: there is no such file" in missing.err


def test_a_broken_plugin_is_set_aside(normcore: Any, monkeypatch: Any) -> None:
    from normcore import registry as registries

    broken = registries.Plugin("broken", "broken", error="ImportError: no such module", trace=("  line 3",))
    registries.default().plugins.append(broken)
    found = normcore("plugins")
    assert found.status == 0
    assert "set aside" in found.out and "ImportError: no such module" in found.out
    assert normcore("lint", "net.yaml").status == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nimport a_module_that_is_not_there\n", "mine.py, line 2: ModuleNotFoundError: No module"),
        ("def f(:\n", "mine.py: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import sys\nsys.exit(3)\n", "mine.py, line 2: SystemExit: 3"),
    ],
)
def test_a_plugin_file_that_fails_gives_one_line(normcore: Any, text: str, words: str) -> None:
    Path("mine.py").write_text(text, encoding="utf-8")
    found = normcore("lint", "net.yaml", "--plugin", "mine.py")
    assert found.status == 2
    assert found.err.startswith("error: plugin file ") and words in found.err
    assert len(found.err.splitlines()) == 1  # no traceback without --debug
    shown = normcore("lint", "net.yaml", "--plugin", "mine.py", "--debug")
    assert shown.err.count("Traceback") > 1


def test_schema(normcore: Any) -> None:
    found = normcore("schema")
    schema = json.loads(found.out)
    assert found.status == 0
    assert schema["$schema"].endswith("2020-12/schema")
    assert "op.batch_norm" in schema["$defs"]


def test_lint_compares_the_data_with_what_the_network_reads_and_ends_in(normcore: Any) -> None:
    found = normcore("lint", "net.yaml", "--set", "network=[flatten, {dense: 5}]")
    assert found.status == 1 and "the network ends in 5 classes" in found.err
    Path("last.yaml").write_text(
        "name: n\ndata: {source: mnist_sample}\nnetwork:\n  - relu\n", encoding="utf-8"
    )
    for command in (("lint", "last.yaml"), ("train", "last.yaml", "--device", "cpu")):
        found = normcore(*command)
        assert found.status == 2 and found.out == ""
        assert found.err.startswith("last.yaml:4:5: cross_entropy: expected an output of shape (N, classes)")
