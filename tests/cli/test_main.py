"""Finding commands, exit statuses, and what `--help` may not import."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from normcore_cli import main

HEAVY = ("numpy", "numba", "pydantic", "rich", "ruamel", "normcore.op", "PIL")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["ops", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from normcore_cli.main import run; status = run(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_has_its_module() -> None:
    context = click.Context(main.cli)
    for name in main.COMMANDS:
        command = main.cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help


def test_unknown_command_and_option(normcore: Any) -> None:
    found = normcore("trian")
    assert found.status == 2
    assert "no such command 'trian'; did you mean 'train'?" in found.err
    assert normcore("train", "net.yaml", "--epoch", "3").status == 2
    assert normcore("train", "net.yaml", "--epochs", "none").status == 2


class Point(EntryPoint):
    dist = None


def test_commands_of_other_distributions(normcore: Any, monkeypatch: Any) -> None:
    @click.command("extra")
    def extra() -> None:
        click.echo("extra ran")

    monkeypatch.setattr(sys.modules[__name__], "extra", extra, raising=False)
    good, bad = (
        Point("extra", f"{__name__}:extra", main.GROUP),
        Point("broken", "no_such_module:x", main.GROUP),
    )
    monkeypatch.setattr(main, "_from_plugins", lambda: {"extra": good, "broken": bad})
    assert "extra" in normcore("--help").out
    assert normcore("extra").out == "extra ran\n"
    found = normcore("broken")
    assert found.status == 2
    assert "cannot be loaded (ModuleNotFoundError" in found.err


def raising(fault: BaseException) -> click.Command:
    @click.command("raising")
    def command() -> None:
        raise fault

    return command


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; --debug shows where"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_faults_become_statuses(
    normcore: Any, monkeypatch: Any, fault: BaseException, status: int, message: str
) -> None:
    monkeypatch.setattr(main.Commands, "get_command", lambda *a: raising(fault))
    monkeypatch.setattr(main.os, "dup2", lambda *a: None)
    found = normcore("train")
    assert found.status == status
    assert message in found.err
    assert "Traceback" not in found.err


def test_debug_shows_the_traceback(normcore: Any) -> None:
    assert "Traceback" not in normcore("lint", "absent.yaml").err
    found = normcore("lint", "absent.yaml", "--debug")
    assert found.status == 2
    assert "Traceback" in found.err
    assert "absent.yaml: there is no such file" in found.err


def test_a_distribution_that_brings_commands_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bringing, other = tmp_path / "commander-1.0.dist-info", tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "entry_points.txt").write_text("[console_scripts]\nother = other:main\n")
    assert not main._brings_commands(str(tmp_path))
    bringing.mkdir()
    (bringing / "METADATA").write_text("Metadata-Version: 2.1\nName: commander\nVersion: 1.0\n")
    (bringing / "entry_points.txt").write_text(f"[{main.GROUP}]\nextra = json:loads\n")
    assert main._brings_commands(str(tmp_path))
    assert not main._brings_commands(str(tmp_path / "absent"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "extra" in main._from_plugins()
