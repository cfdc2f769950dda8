"""A fresh environment that sees this one's packages, for strangers' plugins to be installed into, offline."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from normcore_cli.main import run as run_here


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment. packages: its own site-packages."""

    python: Path
    packages: Path

    def run(self, *arguments: object, folder: Path) -> Outcome:
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def normcore(self, *arguments: object, folder: Path) -> Outcome:
        return self.run("-m", "normcore_cli.main", *arguments, folder=folder)

    def pip(self, *arguments: object, folder: Path) -> None:
        """This environment's pip, working on the other one; nothing is downloaded."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        command += map(str, arguments)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def register(self, module: str, text: str, *, distribution: str = "", group: str = "normcore") -> None:
        """Put a module with an entry point of its name there, as an installer would."""
        (self.packages / f"{module}.py").write_text(text, encoding="utf-8")
        info = self.packages / f"{distribution or module}-0.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution or module}\nVersion: 0.2\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n", encoding="utf-8")


def make_environment(folder: Path) -> Environment:
    for needed in ("pip", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed (extra `test`)")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    scripts, packages = Path(paths["scripts"]), Path(paths["purelib"])
    ours = sysconfig.get_paths()["purelib"]
    (packages / "parent.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    return Environment(scripts / ("python.exe" if os.name == "nt" else "python"), packages)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def normcore(capsys, tmp_path, monkeypatch):
    """The command line in this process and an empty folder."""
    import warnings

    from normcore.registry import default, leave_out

    monkeypatch.chdir(tmp_path)
    shown = warnings.showwarning

    def call(*arguments):
        status = run_here(list(map(str, arguments)))
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield call
    warnings.showwarning = shown
    leave_out(())
    default.cache_clear()
