"""Broken plugins, one fault each, installed: doctor or check catches every one and names the fault."""

import json
from pathlib import Path

import pytest

FAULTY_OPS = Path(__file__).resolve().parents[1] / "conformance" / "faulty_ops.py"
OP = '''
import normcore

@normcore.elementwise(source="none")
class {name}:
    """3 x"""
    def forward(x): return 3.0 * x
    def derivative(x, y): return 3.0

@normcore.hookimpl
def normcore_ops(): return [{name}]
'''
# What doctor must find. Fault -> (the plugin's text, words of its error or remark)
INSTALLED = {
    "import_error": ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
    "wrong_signature": (
        "import normcore\n@normcore.hookimpl\ndef normcore_ops(registry): return []",
        "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "misspelt_hook": (
        "import normcore\n@normcore.hookimpl\ndef normcore_opps(): return []",
        "hook 'normcore_opps' is unknown; did you mean 'normcore_ops'?",
    ),
    "duplicate_op": (OP.format(name="relu"), "op 'relu' is already brought by plugin 'activation'"),
    "raising_hook": (
        "import normcore\n@normcore.hookimpl\ndef normcore_losses(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
}
REMARKED = {
    "unmarked_hook": (
        "def normcore_ops(): return []",
        "function 'normcore_ops' is never called: mark it with @normcore.hookimpl",
    ),
    "unmarked_misspelt": (
        "def normcore_opps(): return []",
        "mark it with @normcore.hookimpl; did you mean 'normcore_ops'?",
    ),
    "no_hooks": ("x = 1", "implements no hook and brings nothing"),
    "cpu_only": (
        "import normcore\n\nclass CpuOnly(normcore.Op, name='cpu_only'):\n    def forward_cpu(self, t): ...\n\n"
        "@normcore.hookimpl\ndef normcore_ops(): return [CpuOnly]",
        "no CUDA kernels: cpu_only; on a GPU runs on the CPU, by copying",
    ),
}
# What check must find. Op of faulty_ops.py -> (check, words of its message)
COMPUTED = {
    "writes_beyond": ("bounds", "wrote 0 bytes behind the end"),
    "wrong_gradient": ("gradients", "central differences give"),
    "sums_by_thread": ("threads", "2 threads against 1"),
    "keeps_state": ("repeatable", "second run"),
}


@pytest.fixture(scope="module")
def doctors(environment, tmp_path_factory):
    """What doctor says, as JSON and as text, where every broken plugin is installed, and two of one name."""
    for module, (text, _) in {**INSTALLED, **REMARKED}.items():
        environment.register(module, text)
    environment.register("train", "", distribution="commander", group="normcore.commands")
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "relu_too.py").write_text(OP.format(name="relu"), encoding="utf-8")
    arguments = ("plugins", "doctor", "--plugin", "relu_too.py")
    return [environment.normcore(*arguments, *more, folder=folder) for more in (["--json"], [])]


@pytest.mark.parametrize("fault", [*INSTALLED, *REMARKED])
def test_doctor_names_the_fault(fault, doctors):
    as_json, as_text = doctors
    assert as_json.status == as_text.status == 1
    (plugin,) = [p for p in json.loads(as_json.out)["plugins"] if p["name"] == fault]
    assert (plugin["distribution"], plugin["version"]) == (fault, "0.2")
    if fault in INSTALLED:
        words = INSTALLED[fault][1]
        assert words in plugin["error"]
    else:
        words = REMARKED[fault][1]
        assert any(words in remark for remark in plugin["remarks"])
        assert not plugin["error"]
    assert words in as_text.out
    if fault in ("import_error", "raising_hook"):
        assert f"{fault}.py" in "".join(plugin["trace"]), "the traceback's last frames"


def test_doctor_sees_what_lies_between_plugins(doctors):
    report = json.loads(doctors[0].out)
    assert not report["ok"]
    command, file = sorted(report["errors"])
    assert command == "command 'train' of commander is already brought by normcore; rename one of them"
    assert file.startswith("plugin file relu_too.py: op 'relu' is already brought by plugin 'activation'")
    healthy = [p for p in report["plugins"] if p["distribution"] == "normcore"]
    assert len(healthy) >= 6 and not any(p["error"] or p["remarks"] for p in healthy)


def test_check_says_why_a_plugin_was_set_aside(environment, doctors, tmp_path):
    found = environment.normcore("check", "import-error", folder=tmp_path)
    assert found.status == 2
    assert "plugin 'import_error' was set aside: ModuleNotFoundError" in found.err


def test_everything_else_goes_on_working(environment, doctors, tmp_path):
    found = environment.normcore("ops", "show", "relu", folder=tmp_path)
    assert found.status == 0 and "plugin: activation" in found.out


def test_check_names_the_fault_of_what_ops_compute(normcore, tmp_path):
    """The ops of the conformance suite's own table, as a plugin file (all its faults: tests/conformance)."""
    names = [f"cls for cls in FAULTS if cls.name in {sorted(COMPUTED)}"]
    text = FAULTY_OPS.read_text(encoding="utf-8")
    text += f"\n\n@normcore.hookimpl\ndef normcore_ops():\n    return [{names[0]}]\n"
    (tmp_path / "faulty.py").write_text(text, encoding="utf-8")
    only = [word for check, _ in COMPUTED.values() for word in ("--only", check)]
    found = normcore("check", "faulty.py", "--device", "cpu", "--json", *only)
    assert found.status == 1
    reports = {op["op"]: op for op in json.loads(found.out)["ops"]}
    assert reports.keys() == COMPUTED.keys()
    for name, (check, words) in COMPUTED.items():
        failed = {o["check"]: o for o in reports[name]["checks"] if o["status"] == "failed"}
        assert words in failed[check]["detail"]
        assert failed[check]["shapes"], "the smallest failing input"
        if name != "keeps_state":  # which nothing can be relied on to repeat
            assert failed.keys() == {check}


def test_check_runs_cuda_kernels_in_the_simulator(normcore, tmp_path):
    normcore("plugins", "new", "mine", "--kind", "pooling", "--single-file")
    file = tmp_path / "mine.py"
    before, kernel, behind = file.read_text(encoding="utf-8").partition("def _backward_cuda")
    wrong = behind.replace("= x[plane, i, j] *", "= 2.0 * x[plane, i, j] *", 1)
    assert wrong != behind
    file.write_text(before + kernel + wrong, encoding="utf-8")
    found = normcore("check", "mine.py", "--only", "cuda_kernels", "--only", "cuda_simulated")
    assert found.status == 1
    assert "cuda_kernels passed" in " ".join(found.out.split())
    assert "CUDA (simulated) against CPU" in found.out and "gradient of the input" in found.out
