"""The guides cannot rot: their files are written out as they stand, their commands run, their outputs compared.

In a guide, a fenced block with `title=NAME` is a file, a `bash` block is a command line, and the `output` block
behind it holds lines that the command prints (parts of each line may be left out at its end).
"""

import ast
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from normcore_cli.main import COMMANDS

import normcore
from normcore import hookspecs
from normcore.config.config import from_mapping
from normcore.registry import Registry
from normcore.testing.suite import CHECKS

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGIN_GUIDES = ("plugins/README.md", "plugins/KERNELS.md")
GUIDES = ("README.md", *PLUGIN_GUIDES, "normcore/README.md")
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOOKS = [name for name in vars(hookspecs) if name.startswith("normcore_")]


@dataclass
class Block:
    language: str
    title: str
    text: str
    output: str = ""


def blocks_of(guide):
    found = []
    for language, rest, text in FENCE.findall((ROOT / guide).read_text(encoding="utf-8")):
        if language == "output":
            found[-1].output = text
        else:
            title = re.search(r"title=(\S+)", rest)
            found.append(Block(language, title.group(1) if title else "", text))
    return found


def run(line, folder):
    """Run one command line of a guide in a folder; its output."""
    words = shlex.split(line)
    program = {"normcore": [sys.executable, "-m", "normcore_cli.main"], "python": [sys.executable]}
    command = [*program[words[0]], *words[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def squeezed(line):
    return " ".join(line.split())


def assert_prints(block, printed):
    """Every line of a block's output begins a printed line."""
    lines = [squeezed(line) for line in printed.splitlines()]
    for shown in block.output.strip().splitlines():
        assert any(line.startswith(squeezed(shown)) for line in lines), f"{shown!r} is not in:\n{printed}"


def commands_of(guide):
    return [b for b in blocks_of(guide) if b.language == "bash" and "venv" not in b.text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with every file of the plugin guides."""
    path = tmp_path_factory.mktemp("guide")
    for block in blocks_of_plugin_guides():
        if block.title:
            (path / block.title).write_text(block.text, encoding="utf-8")
    return path


def blocks_of_plugin_guides():
    return [block for guide in PLUGIN_GUIDES for block in blocks_of(guide)]


@pytest.mark.parametrize(
    "block", [b for g in PLUGIN_GUIDES for b in commands_of(g)], ids=lambda b: b.text.strip()[:40]
)
def test_commands_of_the_plugin_guides(block, folder):
    for line in block.text.strip().splitlines():
        assert_prints(block, run(line, folder))


def test_the_diary_was_kept(folder):
    """The example of the training hooks, after the guide's last command."""
    if not (folder / "diary.txt").exists():
        run(commands_of("plugins/README.md")[-1].text.strip(), folder)
    lines = (folder / "diary.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "5 arrays to train"
    assert lines[1].startswith("first loss")
    assert [line.split(":")[0] for line in lines[2:]] == [f"epoch {k}" for k in (1, 2, 3, 4)] + [
        "done after epoch 4"
    ]


@pytest.mark.parametrize(
    "block", [b for b in blocks_of_plugin_guides() if b.language == "python"], ids=lambda b: b.title
)
def test_plugin_files_of_the_guide_register(block, folder):
    if block.title.startswith("test_"):
        return  # run below
    if block.title == "rank_layers.py":
        return  # a command, installed in tests/plugins/test_author.py
    plugin = Registry().load_file(folder / block.title)
    assert plugin.components or block.title == "diary.py"


def test_the_guides_own_test_runs(folder):
    line = "python -m pytest -q -p no:cacheprovider --import-mode=prepend test_scale_norm.py"
    assert " passed" in run(line, folder)


def test_the_loss_of_the_guide_has_the_right_gradient(folder):
    registry = Registry()
    registry.load_entry_points()
    assert registry.load_file(folder / "cauchy.py").components == [("loss", "cauchy")]
    spec = {"input": [3], "network": [{"dense": 2}], "loss": "cauchy"}
    net = normcore.Network(from_mapping(spec, registry=registry), dtype="float64")
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    loss = net.loss(x, targets)
    assert np.isclose(loss, np.log1p((net.forward(x) - targets) ** 2).mean())
    net.loss(x, targets)
    net.backward()
    weight, gradient = net.parameters["dense1.weight"], net.gradients["dense1.weight"].copy()
    weight[0, 1] += 1e-6
    right = net.loss(x, targets)
    weight[0, 1] -= 2e-6
    left = net.loss(x, targets)
    assert np.isclose(gradient[0, 1], (right - left) / 2e-6, rtol=1e-6)


def test_the_guide_counts_lines_as_they_are():
    """What an author writes for a layer: within a tenth of what the guide says, and no more than elsewhere."""
    guide = (ROOT / "plugins/README.md").read_text(encoding="utf-8")
    table = guide.partition("## What it costs to write")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    rows = rows[2:]
    assert [row[0].split()[0] for row in rows[:2]] == ["ELU", "RMS"] and len(rows) == 4
    for _, elsewhere, here, stated in rows:
        if here.endswith(" above"):
            lines = class_lines(here.split()[0])
        else:
            first, *others = here.split(", ")
            files = [ROOT / "plugins" / first]
            files += [files[0].with_name(other) for other in others]
            lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        assert abs(lines - int(stated)) <= 0.1 * lines, f"{here}: {lines} lines, the guide says {stated}"
        theirs = [int(n.replace(",", "")) for n in re.findall(r"([\d,]{3,}) in", elsewhere)]
        assert all(lines <= n for n in theirs), f"{here}: {lines} lines, elsewhere {theirs}"


def class_lines(name):
    """Lines of a class of the plugin guide, with its decorators."""
    for block in blocks_of("plugins/README.md"):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node.end_lineno - node.decorator_list[0].lineno + 1
    raise AssertionError(f"no class {name} in the guide")


def test_the_guide_names_the_mandatory_checks():
    guide = (ROOT / "plugins/README.md").read_text(encoding="utf-8")
    named = re.search(r"nothing mandatory was skipped: (.*?)\.\n", guide)[1]
    mandatory = [check.name for check in CHECKS if check.mandatory]
    assert re.sub(r" \(.*?\)", "", named).split(", ") == mandatory


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_has_an_example(hook):
    assert (getattr(hookspecs, hook).__doc__ or "").strip(), f"{hook} has no docstring"
    guide = (ROOT / "plugins/README.md").read_text(encoding="utf-8")
    assert f"`{hook}(" in guide, f"plugins/README.md does not explain {hook}"
    assert f"def {hook}(" in guide, f"plugins/README.md has no example of {hook}"


def test_readme_has_the_two_lines_of_a_newcomer():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    environment = "python3 -m venv .venv && .venv/bin/pip install"
    assert f"{environment} . && .venv/bin/normcore train examples/lenet-mnist.yaml" in readme
    assert f'{environment} -e ".[test]" && .venv/bin/python -m pytest' in readme


@pytest.mark.parametrize("block", commands_of("README.md"), ids=lambda b: b.text.strip()[:40])
def test_commands_of_the_readme(block, tmp_path):
    """In a folder of its own with the examples in it: training writes to runs/."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for line in block.text.strip().splitlines():
        assert_prints(block, run(line, tmp_path))


def test_links_of_the_guides_lead_somewhere():
    for guide in GUIDES:
        text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", (ROOT / guide).read_text(encoding="utf-8")))
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / guide).parent / target).exists(), f"{guide}: {target}"


def test_commands_named_in_the_guides_exist():
    for guide in GUIDES:
        # Without the code between fences: a guide may show how a command is made that is not normcore's own.
        text = FENCE.sub("", (ROOT / guide).read_text(encoding="utf-8"))
        for name in re.findall(r"`normcore ([a-z][a-z-]*)", text):
            assert name in COMMANDS, f"{guide}: normcore {name}"


@pytest.mark.parametrize(
    "block", [b for b in blocks_of("README.md") if b.language == "python"], ids=lambda b: b.text[:30].strip()
)
def test_python_of_the_readme(block, tmp_path):
    (tmp_path / "block.py").write_text(block.text, encoding="utf-8")
    assert_prints(block, run(f"python {tmp_path / 'block.py'}", ROOT))
