"""Which shapes an op is timed at, how bytes are counted, and that a wrong kernel is found out."""

import math

import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError
from normcore.measuring import bench, cases, correctness, figures, plots
from normcore.registry import default
from normcore.testing.samples import Sample


def op(name):
    return default().get("op", name).component


def test_shapes_and_sweeps_are_parsed():
    assert cases.parse_shape("32x96x55X55") == (32, 96, 55, 55)
    assert cases.parse_sweep("1k..20k") == (1000, 4000, 16000)
    for bad in ("32x", "axb", "0x3", "-1x3", ""):
        with pytest.raises(ParameterError, match="32x96x55x55"):
            cases.parse_shape(bad)
    for bad in ("1k", "2k..1k", "1q..2q", "0..5"):
        with pytest.raises(ParameterError, match=r"1k\.\.1g"):
            cases.parse_sweep(bad)


def test_every_op_has_cases():
    for registered in default().all("op"):
        cls = registered.component
        if cls.is_view:
            continue
        found = list(cases.cases_of(cls, cases.samples_for(cls)))
        assert found, registered.name
        for case in found:
            case.op.plan(*cases.tensors(case.op, case.shapes))


def test_a_given_shape_takes_parameters_that_accept_it():
    (sample,) = cases.samples_for(op("max_pool"), [(2, 3, 9, 9)])
    assert sample.input_shapes == ((2, 3, 9, 9),) and "kernel_size" in sample.params
    (several,) = cases.samples_for(op("add"), [(4, 5)])
    assert several.input_shapes == ((4, 5), (4, 5))
    with pytest.raises(ShapeError, match="does not take --shape 7"):
        list(cases.samples_for(op("batch_norm"), [(7,)]))


@pytest.mark.parametrize("name", ["relu", "batch_norm", "max_pool", "concat"])
def test_sizes_of_a_sweep_are_about_what_was_asked(name):
    sizes = (4000, 100_000, 3_000_000)
    for size, sample in zip(sizes, cases.samples_for(op(name), sizes=sizes), strict=True):
        assert 0.5 < sum(math.prod(s) for s in sample.input_shapes) / size < 2


def test_bytes_that_must_move():
    layer = normcore.layer("batch_norm", (4, 3, 5, 5))
    x = np.zeros((4, 3, 5, 5), np.float32)
    arrays = 4 * 300
    assert figures.moved_bytes(layer, [x], "forward") == 2 * arrays + 2 * 12 + 2 * 12
    assert figures.moved_bytes(layer, [x], "backward") == 3 * arrays + 4 * 12
    pool = normcore.layer("max_pool", (2, 2, 4, 4), kernel_size=2)
    moved = figures.moved_bytes(pool, [np.zeros((2, 2, 4, 4), np.float32)], "forward")
    assert moved == 4 * (64 + 16)


@normcore.elementwise(name="bench_right", source="none")
class Right:
    """x^2"""

    def forward(x):
        return x * x

    def derivative(x, y):
        return 2.0 * x

    def reference(x):
        return x**2


@normcore.elementwise(name="bench_wrong_value", source="none")
class WrongValue:
    """x^2, but not at all near 1"""

    def forward(x):
        return 1.001 * x * x if 0.99 < x < 1.01 else x * x

    def derivative(x, y):
        return 2.0 * x

    def reference(x):
        return x**2


@normcore.elementwise(name="bench_wrong_slope", source="none")
class WrongSlope:
    """x^2 with a slope that is 2 % off for positive numbers"""

    def forward(x):
        return x * x

    def derivative(x, y):
        return 2.04 * x if x > 0.0 else 2.0 * x

    def reference(x):
        return x**2


def verdict(cls, dtype="float32"):
    return correctness.check(
        cases.BenchCase(cls.make(), Sample("here", shape=(8, 4000)), ((8, 4000),), dtype)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_op_is_right(dtype):
    found = verdict(Right, dtype)
    assert (found.forward, found.backward) == (True, True), found.detail


def test_a_few_wrong_values_are_found():
    found = verdict(WrongValue)
    assert found.forward is False and "output" in found.detail


def test_a_slightly_wrong_gradient_is_found():
    found = verdict(WrongSlope)
    assert (found.forward, found.backward) == (True, False), found.detail
    assert "gradient of the input" in found.detail


def test_a_wrong_op_gets_no_time():
    settings = bench.Settings(seconds=0.01, rounds=3)
    case = cases.BenchCase(WrongSlope.make(), Sample("here", shape=(8, 4000)), ((8, 4000),))
    forward, backward = bench.Bench(settings).rows(case)
    assert forward["correct"] is True and forward["median_s"] > 0
    assert backward["correct"] is False and backward["median_s"] is None
    assert bench.failed([forward, backward]) == [backward]


def test_a_batch_statistic_is_checked_at_the_timed_shape():
    shape = (6, 16, 21, 21)
    case = cases.BenchCase(op("batch_norm").make(), Sample("here", shape=shape), (shape,))
    found = correctness.check(case)
    assert (found.forward, found.backward) == (True, True), found.detail
    assert correctness.runs_parallel(case) and found.batch > 2


@pytest.mark.parametrize("sweep", [False, True])
def test_pictures(tmp_path, sweep):
    pytest.importorskip("matplotlib", reason="the extra `plot` brings matplotlib")
    rows = [
        {
            "op": "relu", "direction": d, "dtype": "float32", "device": "cpu", "memory_format": "channels_first",
            "median_s": 1e-3, "interval_s": [9e-4, 1.1e-3], "elements": n, "bytes": 8 * n, "flops": n,
            "gb_per_s": 8 * n / 1e6, "gflops": n / 1e6, "copy_s": 9e-4,
        }
        for d in ("forward", "backward") for n in (1000, 4000)
    ]  # fmt: skip
    machine = {"processor": "p", "limits": {"cpu": {"copy_gb_per_s": 30.0, "peak_gflops_float32": 500.0}}}
    for suffix in (".png", ".svg"):
        file = tmp_path / f"picture{suffix}"
        plots.check(str(file))
        plots.draw(str(file), machine, rows, sweep)
        assert file.stat().st_size > 2000
