"""A stranger's way with a plugin: new, install, doctor, check, train from YAML, its own tests, bench, uninstall."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from normcore_cli.main import run
from normcore_cli.plugins_new import KINDS

KIND_OF = {"stranger_wave": "elementwise", "stranger_norm": "normalization", "stranger_pool": "pooling"}
BENCHED = {"stranger_wave": "32x128", "stranger_norm": "4x16x6x5", "stranger_pool": "2x8x9x9"}
# What the author of stranger_norm writes in the place of the kernels that `plugins new` gave.
TEMPLATE = '''\
"""stranger_norm: root mean square normalization of whole samples, from two scalar functions."""

import math

import normcore


@normcore.normalization(over="sample", source="after Zhang and Sennrich 2019, arXiv:1910.07467")
class stranger_norm:
    """x / sqrt(mean of x^2 + eps), scaled and shifted by channel. eps: added to the mean."""

    eps: float = 1e-5

    def squares(x):
        return x * x

    def normalize(x, squares, eps):
        return x * (1.0 / math.sqrt(squares + eps))


@normcore.hookimpl
def normcore_ops():
    return [stranger_norm]
'''


@pytest.fixture(scope="module")
def home(environment, tmp_path_factory):
    """A folder with the three packages, installed by one call of pip.

    The pooling is the hand-written one of `plugins new`; the other two are changed by their authors.
    """
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, kind in KIND_OF.items():
            assert run(["plugins", "new", name, "--kind", kind]) == 0
    # The elementwise one leaves its derivative to the engine.
    file = folder / "stranger_wave" / "stranger_wave.py"
    text, count = re.subn(
        r"\n    def derivative\(.*?\n\n", "\n", file.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert count == 1
    file.write_text(text, encoding="utf-8")
    # The normalization becomes a template op.
    folder_of_norm = folder / "stranger_norm"
    (folder_of_norm / "stranger_norm.py").write_text(TEMPLATE, encoding="utf-8")
    its_test = folder_of_norm / "test_stranger_norm.py"
    text = its_test.read_text(encoding="utf-8").replace("StrangerNorm", "stranger_norm")
    its_test.write_text(text, encoding="utf-8")
    folders = [f"./{name}" for name in KIND_OF]
    environment.pip("install", "--no-index", "--no-deps", "--no-build-isolation", *folders, folder=folder)
    return folder


def test_a_package_has_the_files_it_needs(home):
    files = {path.name for path in (home / "stranger_pool").iterdir() if path.is_file()}
    assert files == {
        "stranger_pool.py",
        "pyproject.toml",
        "test_stranger_pool.py",
        "example.yaml",
        "README.md",
    }
    for path in (home / "stranger_pool").iterdir():
        if path.is_file():
            assert not re.search(r"my_op|MyOp|[{}]name", path.read_text(encoding="utf-8")), path


def test_the_elementwise_op_is_short(home):
    """What an author writes: the decorated class."""
    text = (home / "stranger_wave" / "stranger_wave.py").read_text(encoding="utf-8")
    body = text[text.index("@normcore.elementwise") : text.index("@normcore.hookimpl")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 15


def test_installed_plugins_are_found_and_can_be_left_out(environment, home):
    found = json.loads(environment.normcore("plugins", "doctor", "--json", folder=home).out)
    mine = {p["name"]: p for p in found["plugins"] if p["distribution"].startswith("stranger")}
    assert found["ok"] and mine.keys() == KIND_OF.keys()
    for name, plugin in mine.items():
        assert (plugin["distribution"], plugin["version"]) == (name, "0.1.0")
        assert plugin["hooks"] == ["normcore_ops"] and plugin["brings"] == {"op": [name]}
        assert plugin["import_s"] > 0 and not plugin["error"] and not plugin["remarks"]
    listed = environment.normcore("plugins", "list", "--json", "--without", "stranger_wave", folder=home)
    names = {p["name"] for p in json.loads(listed.out)}
    assert "stranger_pool" in names and "stranger_wave" not in names


@pytest.mark.parametrize("name", KIND_OF)
def test_check_train_own_tests(name, environment, home):
    folder = home / name
    checked = environment.normcore(
        "check", name.replace("_", "-"), "--device", "cpu", "--json", folder=folder
    )
    report = json.loads(checked.out)
    assert checked.status == 0 and report["ok"], checked.err
    status = {outcome["check"]: outcome["status"] for outcome in report["ops"][0]["checks"]}
    assert {status[check] for check in ("value", "gradients", "bounds", "yaml", "cuda_simulated")} == {
        "passed"
    }
    assert all(o["status"] == "passed" for o in report["ops"][0]["checks"] if o["mandatory"])
    trained = environment.normcore("train", "example.yaml", "--device", "cpu", folder=folder)
    assert trained.status == 0, trained.err
    assert (folder / "runs").is_dir()
    tested = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=folder)
    assert tested.status == 0 and " passed" in tested.out, tested.out
    rows = benched(environment, name, folder)
    assert [row["direction"] for row in rows] == ["forward", "backward"]
    assert all(row["op"] == name and row["median_s"] > 0 and row["correct"] is True for row in rows)


def benched(environment, name, folder):
    """The rows of `normcore bench`, as short as can be."""
    short = ("--seconds", "0.01", "--no-first-call", "--format", "channels_first", "--device", "cpu")
    found = environment.normcore("bench", name, "--shape", BENCHED[name], *short, "--json", folder=folder)
    assert found.status == 0, found.err
    return json.loads(found.out)["rows"]


def test_uninstalled_it_is_gone(environment, home):
    """The last test of this file: it takes the packages away."""
    environment.pip("uninstall", "-y", *KIND_OF, folder=home)
    found = environment.normcore("check", "stranger_pool", folder=home)
    assert found.status == 2
    assert "the package in the folder stranger_pool is not installed" in found.err
    assert environment.normcore("ops", "show", "stranger_wave", folder=home).status == 2


def test_the_guides_command_is_one_of_normcores(environment, tmp_path):
    """The block rank_layers.py of plugins/README.md, with the entry point that the guide gives it, installed."""
    guide = (Path(__file__).resolve().parents[2] / "plugins" / "README.md").read_text(encoding="utf-8")
    blocks = dict(
        re.findall(r"^```\w+ title=(rank_layers\.\w+)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    )
    build = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    project = '[project]\nname = "rank-layers"\nversion = "0.1"\n'
    wheel = '[tool.hatch.build.targets.wheel]\nonly-include = ["rank_layers.py"]\n'
    (tmp_path / "rank_layers.py").write_text(blocks["rank_layers.py"], encoding="utf-8")
    text = build + project + blocks["rank_layers.toml"] + wheel
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    (tmp_path / "net.yaml").write_text(
        "input: [4]\nnetwork: [dense: 3, relu, dense: 100]\nloss: mse\n", encoding="utf-8"
    )
    environment.pip("install", "--no-index", "--no-deps", "--no-build-isolation", ".", folder=tmp_path)
    assert re.search(r"rank-layers +From rank-layers\.", environment.normcore("--help", folder=tmp_path).out)
    found = environment.normcore("rank-layers", "net.yaml", folder=tmp_path)
    assert found.status == 0, found.err
    assert [line.split() for line in found.out.splitlines()] == [
        ["400", "dense2"],
        ["15", "dense1"],
        ["0", "relu1"],
    ]
    missing = environment.normcore("rank-layers", "nothing.yaml", folder=tmp_path)
    assert missing.status == 2 and "Traceback" not in missing.err and "nothing.yaml" in missing.err
    environment.pip("uninstall", "-y", "rank-layers", folder=tmp_path)
    assert "rank-layers" not in environment.normcore("--help", folder=tmp_path).out


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(KIND_OF.values())))
def test_a_single_file_of_each_other_kind_passes_its_checks(kind, normcore):
    assert normcore("plugins", "new", "mine", "--kind", kind, "--single-file").status == 0
    found = normcore("check", "mine.py", "--device", "cpu")
    assert found.status == 0, found.out
    assert " 0 failed" in found.out
    assert [path.name for path in Path().iterdir()] == ["mine.py"] or Path("__pycache__").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_a_networks_file_takes_each_kind(kind, normcore):
    """The example is right; training it is what the installed packages show."""
    normcore("plugins", "new", "mine", "--kind", kind)
    found = normcore("lint", "mine/example.yaml", "--plugin", "mine/mine.py")
    assert found.status == 0, found.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Norm", "did you mean 'my_norm'?"),
        ("2nd", "expected lower_snake_case"),
        ("../elsewhere", "expected lower_snake_case"),
        ("class", "a word of Python's own"),
        ("residual", "a word of normcore's own"),
        ("inputs", "a word of normcore's own"),
        ("relu", "op 'relu' is already brought by plugin 'activation'"),
        ("bn", "op 'bn' is already brought by plugin 'normalization'"),
        ("numpy", "a Python module 'numpy' exists already"),
        ("statistics", "a Python module 'statistics' exists already"),
        ("taken", "taken is there already"),
    ],
)
def test_names_that_cannot_be(name, said, normcore):
    Path("taken").mkdir()
    found = normcore("plugins", "new", name)
    assert found.status == 2
    assert said in found.err and found.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_a_file_that_is_there_is_kept(normcore):
    Path("mine.py").write_text("precious", encoding="utf-8")
    assert "mine.py is there already" in normcore("plugins", "new", "mine", "--single-file").err
    assert Path("mine.py").read_text(encoding="utf-8") == "precious"


def test_the_file_of_an_installed_plugin_is_that_plugin(normcore):
    """Editable installs: the package's file by its name collides with nothing."""
    file = importlib.util.find_spec("normcore_pooling").origin
    found = normcore("check", file, "--only", "docs")
    assert found.status == 0, found.err


def test_leaving_out_what_is_not_there_names_the_nearest(normcore):
    found = normcore("ops", "--without", "poolin")
    assert found.status == 2
    assert "--without poolin: no installed plugin has this name; did you mean 'pooling'?" in found.err
    assert "max_pool" not in normcore("ops", "--without", "pooling").out
    assert "max_pool" in normcore("ops").out  # the next command has everything again
