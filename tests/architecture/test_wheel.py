"""The wheel holds what it should: a misspelt path in pyproject.toml builds without an error, and a git-ignored
data file vanishes without one."""

import importlib.util
import pathlib
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The names in a wheel built from this checkout, without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (extra `test`)")
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_top_level_names_are_the_packages_of_pyproject(files):
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    expected = {pathlib.PurePosixPath(p).name for p in packages}
    found = {name.split("/")[0] for name in files if ".dist-info" not in name}
    assert found == expected


def test_every_family_of_plugins_is_shipped_and_registered():
    families = {p.parent.name for p in (ROOT / "plugins").glob("*/__init__.py")}
    packages = {p for p in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] if "/" in p}
    assert {f"plugins/{family}" for family in families} | {"cli/normcore_cli"} == packages
    assert families <= set(PROJECT["project"]["entry-points"]["normcore"].values())


def test_every_source_file_is_in_the_wheel(files):
    for folder, strip in (("normcore", 0), ("plugins", 1), ("cli", 1)):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT).parts[strip:]
            if path.is_dir() or "__pycache__" in path.parts or (inside[-1].endswith(".md") and strip):
                continue
            assert "/".join(inside) in files, f"{path.relative_to(ROOT)} is not in the wheel"


def test_the_packaged_digits_and_their_notice_are_in_the_wheel(files):
    assert "normcore/data/files/mnist_sample.npz" in files
    assert "normcore/data/files/NOTICE" in files


def test_entry_points_name_importable_modules():
    for module in PROJECT["project"]["entry-points"]["normcore"].values():
        assert importlib.util.find_spec(module) is not None, module
    assert PROJECT["project"]["scripts"] == {"normcore": "normcore_cli.main:main"}


def test_the_installed_version_is_the_packages():
    import normcore

    assert normcore.__version__ == PROJECT["project"]["version"]
