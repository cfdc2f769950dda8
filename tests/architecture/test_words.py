"""What no file of the project says: paths of one machine, words that nobody outside understands."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# An absolute path of somebody's machine, the folder beside a checkout, marks of unfinished work.
FORBIDDEN = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w+|\.\./shared\b|\b(?:TODO|FIXME|XXX)\b")
BINARY = {".npz", ".png", ".jpg", ".npy", ".gz", ".safetensors"}


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / line for line in done.stdout.splitlines()]


def test_no_file_holds_a_forbidden_word():
    faults = []
    for path in tracked():
        if path.suffix in BINARY or path == pathlib.Path(__file__).resolve() or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if FORBIDDEN.search(line):
                faults.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not faults, "\n".join(faults)


def test_no_large_file_is_tracked():
    faults = [
        f"{p.name}: {p.stat().st_size / 1e6:.1f} MB"
        for p in tracked()
        if p.is_file() and p.stat().st_size > 3e6
    ]
    assert not faults, faults


def test_the_top_level_is_as_designed():
    top = {p.relative_to(ROOT).parts[0] for p in tracked() if len(p.relative_to(ROOT).parts) > 1}
    assert top <= {"normcore", "plugins", "cli", "tests", "benches", "examples", ".ci"}
    assert not (ROOT / "plugins" / "__init__.py").exists()
