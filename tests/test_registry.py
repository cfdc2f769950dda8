"""A plugin that cannot be used is reported and set aside, and everything else goes on working."""

import importlib.metadata
import sys
import textwrap

import pytest

import normcore
from normcore import registry as registries
from normcore.registry import Registry

GOOD = """
    import normcore

    @normcore.elementwise(source="none")
    class tripled:
        \"\"\"3 x\"\"\"
        def forward(x): return 3 * x
        def derivative(x, y): return 3.0

    @normcore.hookimpl
    def normcore_ops(): return [tripled]
"""
# fault -> (what the plugin's file says instead, words of the message)
BROKEN = {
    "import error": ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "exit at import": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "misspelt hook": (
        "import normcore\n@normcore.hookimpl\ndef normcore_opps(): return []",
        "hook 'normcore_opps' is unknown; did you mean 'normcore_ops'?",
    ),
    "wrong hook signature": (
        "import normcore\n@normcore.hookimpl\ndef normcore_ops(registry): return []",
        "registry",
    ),
    "returns one op": (GOOD.replace("return [tripled]", "return tripled"), "return [tripled]"),
    "returns strings": (GOOD.replace("return [tripled]", "return ['tripled']"), "expected op classes"),
    "returns a loss": (GOOD.replace("return [tripled]", "return [normcore.Loss]"), "expected op classes"),
    "wrong interface": (
        GOOD.replace("return [tripled]", "tripled.interface = 99; return [tripled]"),
        "written for interface 99, this normcore speaks 1",
    ),
    "bad name": (
        GOOD.replace("class tripled", "class Tripled").replace("[tripled]", "[Tripled]"),
        "lower_snake_case",
    ),
    "twice the same": (GOOD.replace("[tripled]", "[tripled, tripled]"), "op 'tripled' is already brought by"),
    "misspelt derivative": (
        GOOD.replace("def derivative(x, y)", "def derivatve(x, y)"),
        "did you mean 'derivative'",
    ),
    "reserved parameter": (
        GOOD.replace(
            "def forward(x): return", "seed: float = 1.0\n        def forward(x, seed): return seed *"
        ).replace("derivative(x, y)", "derivative(x, y, seed)"),
        "'seed' is a name the engine uses",
    ),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes a registry that finds the built-in plugins and modules with these texts, as if installed."""
    registries.default()  # before anything is replaced: it is kept for the whole process
    real = list(importlib.metadata.entry_points(group=registries.GROUP))
    monkeypatch.syspath_prepend(tmp_path)

    def install(**modules):
        points = []
        for module, text in modules.items():
            plugin_file(tmp_path, text, f"{module}.py")
            monkeypatch.delitem(sys.modules, module, raising=False)
            points.append(importlib.metadata.EntryPoint(module.split("__")[0], module, registries.GROUP))
        monkeypatch.setattr(registries.importlib.metadata, "entry_points", lambda group: [*real, *points])
        found = Registry()
        found.load_entry_points()
        return found

    return install


def plugin_file(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_plugin_file_brings_its_op(tmp_path):
    found = Registry()
    plugin = found.load_file(plugin_file(tmp_path, GOOD))
    assert plugin.components == [("op", "tripled")]
    assert found.get("op", "tripled").plugin is plugin
    assert len(plugin.digest) == 64
    assert found.load_file(tmp_path / "mine.py") is plugin  # once


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_file_is_refused_with_its_fault(fault, tmp_path):
    text, words = BROKEN[fault]
    found = Registry()
    with pytest.raises(normcore.PluginError, match=r"mine\.py") as raised:
        found.load_file(plugin_file(tmp_path, text))
    assert words in str(raised.value)
    assert not found.plugins and not found.all("op")
    # What was half done is undone: the mended file registers.
    assert found.load_file(plugin_file(tmp_path, GOOD)).components == [("op", "tripled")]


def test_a_broken_installed_plugin_is_set_aside(installed):
    found = installed(broken="import a_module_that_is_not_there")
    (plugin,) = [p for p in found.plugins if p.error]
    assert plugin.name == "broken"
    assert "a_module_that_is_not_there" in plugin.error
    assert plugin.trace
    assert {r.name for r in found.all("op")} == {r.name for r in normcore.ops()}
    with pytest.raises(normcore.PluginError, match="set aside: plugin broken"):
        found.get("op", "something_of_broken")


def test_a_name_that_is_taken_is_reported_with_its_owner(installed):
    taken = normcore.ops()[0]
    found = installed(thief=GOOD.replace("tripled", taken.name))
    (plugin,) = [p for p in found.plugins if p.error]
    assert f"op {taken.name!r} is already brought by plugin {taken.plugin.name!r}" in plugin.error
    assert found.get("op", taken.name).plugin.name == taken.plugin.name


def test_two_plugins_of_one_name_both_register(installed):
    found = installed(same__one=GOOD, same__two=GOOD.replace("tripled", "trebled"))
    assert [p.name for p in found.plugins].count("same") == 2
    assert not [p for p in found.plugins if p.error]
    assert {"tripled", "trebled"} <= {r.name for r in found.all("op")}


def test_without_leaves_a_plugin_out():
    everything = {p.name for p in registries.default().plugins}
    left_out = sorted(everything)[0]
    found = Registry(without=[left_out])
    found.load_entry_points()
    assert {p.name for p in found.plugins} == everything - {left_out}


def test_an_unknown_op_names_the_nearest():
    name = normcore.ops()[0].name
    with pytest.raises(normcore.PluginError, match=f"did you mean {name!r}"):
        registries.default().get("op", name + "x")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(normcore.PluginError, match="there is no such file"):
        Registry().load_file(tmp_path / "absent.py")


def test_hooks_are_called_by_plugin_name_with_the_arguments_they_take():
    calls = []

    class Early:
        @staticmethod
        @normcore.hookimpl
        def normcore_step_end(loss):
            calls.append(("early", loss))

    class Late:
        @staticmethod
        @normcore.hookimpl
        def normcore_step_end(trainer, step, loss):
            calls.append(("late", trainer, step, loss))

    found = Registry()
    found.add(Late, name="z")
    found.add(Early, name="a")
    list(found.call("normcore_step_end", trainer="t", step=3, loss=0.5))
    assert calls == [("early", 0.5), ("late", "t", 3, 0.5)]


def test_loading_a_plugin_file_leaves_no_module_under_its_own_name(tmp_path):
    Registry().load_file(plugin_file(tmp_path, GOOD, "json.py"))
    import json

    assert "normcore" not in (json.__file__ or "") and sys.modules["json"] is json
