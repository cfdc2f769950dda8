"""Starting is quick: heavy libraries are imported when they are used."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "numba", "pydantic", "rich", "ruamel", "sympy", "PIL", "safetensors", "cupy", "torch")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after running a statement."""
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import normcore",
        "import normcore; normcore.hookimpl",
        "from normcore_cli.main import run; assert run(['--help']) == 0",
        "from normcore_cli.main import run; assert run(['--version']) == 0",
    ],
)
def test_nothing_heavy_is_imported(statement):
    assert not loaded_after(statement) & set(HEAVY)


def test_samples_do_not_load_the_suite():
    code = "import sys\nfrom normcore.testing.samples import Sample\nassert 'normcore.testing.suite' not in sys.modules"
    loaded_after(code.replace("import sys\n", ""))


def test_importing_a_plugin_family_does_not_import_its_ops():
    code = "import normcore_activation\nassert not [m for m in sys.modules if m.startswith('normcore_activation.')]"
    assert not loaded_after(code) & {"numba"}


def test_the_registry_needs_what_kernels_need_and_no_more():
    """The first step of a training waits for it; Numba's array constructors alone take 60 ms."""
    code = "from normcore.registry import default; default()\nassert 'numba.np.arrayobj' not in sys.modules"
    assert not loaded_after(code) & {"PIL", "sympy", "rich", "safetensors", "cupy", "torch"}
