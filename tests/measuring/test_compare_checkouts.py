"""benches/compare_checkouts.py on this checkout, twice; no times."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def compare(*words, before=ROOT):
    command = [sys.executable, ROOT / "benches" / "compare_checkouts.py", before, ROOT, *words]
    return subprocess.run([*command, "--starts", "1", "--rounds", "3"], capture_output=True, text=True)


def test_two_checkouts_take_turns():
    done = compare("abs 64 forward")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("abs 64 first forward") and " us  copy " in line


def test_a_folder_that_is_no_checkout_is_an_error(tmp_path):
    done = compare("abs 64 forward", before=tmp_path)
    assert done.returncode == 2 and "expected a checkout" in done.stderr and not done.stdout


def test_rows_that_are_not_there_are_an_error():
    done = compare("no_such_op")
    assert done.returncode == 1 and "no_such_op" in done.stderr and not done.stdout
