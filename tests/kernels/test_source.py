"""The kernel generator: retyped literals, bound names, one text per kernel, no stale caches, safe folders."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from normcore.errors import PluginError
from normcore.kernels import store
from normcore.kernels.function import read
from normcore.kernels.source import Writer


def text_of(function, dtype="float32", **options):
    return Writer(dtype, "cpu", **options).write(read(function))


def module_from(tmp_path, name, source):
    file = tmp_path / f"{name}.py"
    file.write_text(textwrap.dedent(source))
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_literals_take_the_kernels_dtype_and_comments_stay(tmp_path):
    module = module_from(
        tmp_path,
        "literals",
        """
        import math
        def helper(v):
            return v * 0.5  # half of it
        def entry(x, y):
            for i in range(x.size):
                y[i] = helper(x[i]) + 2.0 ** x[0] + math.pi
        """,
    )
    text = text_of(module.entry)
    assert "v * real(0.5)  # half of it" in text
    assert "real(2.0) ** x[0] + real(math.pi)" in text
    assert "real = np.float32" in text and "real = np.float64" in text_of(module.entry, "float64")


def test_math_is_bound_to_the_given_functions(tmp_path):
    module = module_from(
        tmp_path,
        "bound",
        "import math\ndef polynomial(x):\n    return x\ndef entry(x, y):\n    y[0] = math.exp(x[0]) + math.sqrt(x[0])\n",
    )
    text = text_of(module.entry, math_functions={"exp": module.polynomial})
    assert "polynomial(x[0]) + math.sqrt(x[0])" in text


def test_two_functions_of_one_name_both_live(tmp_path):
    first = module_from(tmp_path, "first", "def scale(x):\n    return x * 2.0\n")
    second = module_from(tmp_path, "second", "def scale(x):\n    return x * 3.0\n")
    third = module_from(tmp_path, "third", "def entry(x, y):\n    y[0] = a(x[0]) + b(x[0])\n")
    third.a, third.b = first.scale, second.scale
    text = text_of(third.entry)
    assert "scale(x[0]) + scale_2(x[0])" in text and "def scale_2(x)" in text


def test_constants_may_be_replaced(tmp_path):
    module = module_from(tmp_path, "taps", "TAPS = 3\ndef entry(x, y):\n    y[0] = x[TAPS]\n")
    assert "TAPS = 3" in text_of(module.entry)
    assert "TAPS = 9" in text_of(module.entry, constants={"TAPS": 9})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y[0] = unknown_name", "unknown_name"),
        ("y[0] = os.getpid()", "module 'os'"),
        ("y[0] = LIST[0]", "pass it as an argument"),
    ],
)
def test_what_cannot_be_written_out_is_explained(tmp_path, body, said):
    module = module_from(tmp_path, "faulty", f"import os\nLIST = [1]\ndef entry(x, y):\n    {body}\n")
    with pytest.raises(PluginError, match=re.escape(said)) as caught:
        text_of(module.entry)
    assert "faulty.py:3" in str(caught.value)


SCRIPT = """
import sys, numpy as np
sys.path.insert(0, {folder!r})
import op_file
from types import SimpleNamespace
from normcore.kernels import variant
import normcore.kernels.kernel as kernel
t = SimpleNamespace(variant=variant("float32", parallel=False))
x, y = np.full(4, 2, np.float32), np.empty(4, np.float32)
op_file.entry[t](x, y)
print(y[0], kernel.statistics.compiled, kernel.statistics.loaded)
"""


def run(folder, cache):
    environment = {**os.environ, "NORMCORE_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    script = SCRIPT.format(folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def write_op(folder, factor):
    (folder / "helper_file.py").write_text(f"def scale(x):\n    return x * {factor}\n")
    (folder / "op_file.py").write_text(
        "from normcore.kernels import cpu\nfrom helper_file import scale\n"
        "@cpu\ndef entry(x, y):\n    for i in range(x.size):\n        y[i] = scale(x[i])\n"
    )


def test_second_process_loads_and_an_edited_helper_compiles_anew(tmp_path):
    write_op(tmp_path, 3.0)
    assert run(tmp_path, tmp_path / "cache")[0] == ["6.0", "1", "0"]
    assert run(tmp_path, tmp_path / "cache")[0] == ["6.0", "0", "1"]
    write_op(tmp_path, 5.0)  # the kernel's own file is unchanged: Numba alone would serve the old code
    assert run(tmp_path, tmp_path / "cache")[0] == ["10.0", "1", "0"]


def test_several_processes_at_once(tmp_path):
    write_op(tmp_path, 3.0)
    environment = {**os.environ, "NORMCORE_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0 and out.startswith("6.0")
    assert len(list((tmp_path / "cache" / "kernels").glob("*.py"))) == 1


def test_a_folder_that_cannot_be_used_is_said_once_and_memory_serves(tmp_path):
    write_op(tmp_path, 3.0)
    (tmp_path / "cache").write_text("a file where the folder should be")
    out, err = run(tmp_path, tmp_path / "cache")
    assert out[0] == "6.0"
    assert err.count("kernels are kept in memory only") == 1


def test_text_that_was_tampered_with_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "folder", lambda: tmp_path)
    text = "kernel = 1\n"
    store.load.cache_clear()
    store.load("tampered", text)
    (file,) = pathlib.Path(tmp_path).glob("*.py")
    file.write_text("kernel = 2\n")
    store.load.cache_clear()
    assert store.load("tampered", text).kernel == 1
    store.load.cache_clear()


def test_uncompiled_kernels_give_the_same_numbers():
    from normcore import layer
    from normcore.kernels import uncompiled

    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    compiled = layer("tanh", input_shape=(3, 4)).forward(x).copy()
    with uncompiled():
        plain = layer("tanh", input_shape=(3, 4))
    np.testing.assert_allclose(plain.forward(x), compiled, rtol=1e-6)
