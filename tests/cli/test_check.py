"""`normcore check`: what it finds, what it prints, and its exit status."""

import json

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


def test_a_registered_op_by_name_and_by_alias(normcore):
    found = normcore("check", "leaky_relu", "--only", "docs", "--only", "samples")
    assert found.status == 0
    assert found.out.splitlines()[0] == "leaky_relu"
    assert found.out.splitlines()[-1] == "2 passed, 0 skipped, 0 failed"
    assert normcore("check", "lrelu", "--only", "docs").out.splitlines()[0] == "leaky_relu"


def test_a_plugin_file(normcore, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD, encoding="utf-8")
    found = normcore("check", str(tmp_path / "mine.py"), "--device", "cpu")
    assert found.status == 0, found.out
    assert "0 failed" in found.out.splitlines()[-1]


def test_a_wrong_gradient_fails_with_the_smallest_input(normcore, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD.replace("return 3.0\n", "return 2.0\n"), encoding="utf-8")
    found = normcore("check", str(tmp_path / "mine.py"), "--device", "cpu", "--only", "gradients", "--json")
    assert found.status == 1
    report = json.loads(found.out)
    (outcome,) = report["ops"][0]["checks"]
    assert not report["ok"] and outcome["status"] == "failed"
    assert outcome["shapes"] == [[1, 1, 1, 1]] and outcome["seed"] == 0
    assert "central differences give" in outcome["detail"]


def test_all_ops_of_an_installed_plugin(normcore):
    found = normcore("check", "normalization", "--only", "docs", "--json")
    assert [op["op"] for op in json.loads(found.out)["ops"]]
    by_package = normcore("check", "normcore_normalization", "--only", "docs", "--json")
    names = [op["op"] for op in json.loads(by_package.out)["ops"]]
    assert names == [op["op"] for op in json.loads(found.out)["ops"]]


def test_an_unknown_name_is_bad_usage(normcore):
    found = normcore("check", "leaky_rellu")
    assert found.status == 2
    assert "did you mean 'leaky_relu'" in found.err


def test_an_unknown_check_is_bad_usage(normcore):
    found = normcore("check", "leaky_relu", "--only", "gradient")
    assert found.status == 2
    assert "did you mean 'gradients'" in found.err
    assert not found.out  # no op is begun


def test_a_file_that_brings_no_op_says_so(normcore, tmp_path):
    (tmp_path / "nothing.py").write_text("x = 1\n", encoding="utf-8")
    found = normcore("check", str(tmp_path / "nothing.py"))
    assert found.status == 2
    assert "brings no ops" in found.err


def test_a_mandatory_skip_is_no_success(normcore, tmp_path):
    """An op without a reference and without samples to make one from cannot be said to be right."""
    text = GOOD.replace("def forward(x):\n        return 3.0 * x", "def forward(x, k):\n        return k * x")
    text = text.replace(
        "def derivative(x, y):\n        return 3.0", "def derivative(x, y, k):\n        return k"
    )
    text = text.replace('"""3 x"""', '"""k x"""\n\n    k: float')
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    found = normcore("check", str(tmp_path / "mine.py"), "--only", "value")
    assert found.status == 1
    assert found.out.splitlines()[-1].endswith("skipped though mandatory: tripled value")
