"""lp_norm on CUDA: every kind of p along rows and columns of any length, huge and tiny vectors, ties, NaN, storage."""

import math

import numpy as np
import pytest
from normcore_normalization import teams_cuda

import normcore
from normcore.devices.cuda import device
from normcore.storage import from_bits

rng = np.random.default_rng(0)
# Rows of whole packs and not; columns of whole packs, of one element, more than a tile.
PLACES = {
    "short rows": ((5, 24), -1),
    "odd rows": ((3, 37), -1),
    "columns": ((2, 9, 40), 1),
    "odd columns": ((2, 70, 7), 1),
    "several tiles": ((1, 3, 261), 1),
    "tiles of packs": ((1, 2, 264), 1),
}


def run(x, dy, dtype="float32", where="cuda", **parameters):
    layer = normcore.layer("lp_norm", input_shape=x.shape, device=where, dtype=dtype, **parameters)
    host = device().to_host if where == "cuda" else np.array
    y = host(layer.forward(x, training=True)).copy()
    return y, host(layer.backward(dy)).copy()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("place", PLACES)
def test_the_same_as_the_cpu(place, p):
    shape, axis = PLACES[place]
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    for a, b in zip(run(x, dy, p=p, axis=axis), run(x, dy, where="cpu", p=p, axis=axis), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, math.inf])
def test_rows_that_a_block_takes(p, monkeypatch):
    monkeypatch.setattr(teams_cuda, "SHORT", 20)
    monkeypatch.setattr(teams_cuda, "THREADS", 64)  # as many as the simulator runs
    x, dy = rng.standard_normal((2, 3, 331)).astype(np.float32)
    x[1] *= np.float32(1e25)
    for a, b in zip(run(x, dy, p=p), run(x, dy, where="cpu", p=p), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype, size", [("float32", 1e30), ("float32", 1e-30), ("float64", 1e250)])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("place", ["short rows", "columns"])
def test_huge_and_tiny_vectors(place, p, dtype, size):
    shape, axis = PLACES[place]
    x, dy = rng.standard_normal((2, *shape))
    y, dx = run((x * size).astype(dtype), dy.astype(dtype), dtype, p=p, axis=axis, eps=0.0)
    one_y, one_dx = run(x, dy, "float64", p=p, axis=axis, eps=0.0)
    np.testing.assert_allclose(y, one_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx * np.float64(size), one_dx, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [1, 2])
def test_ties_share_and_a_nan_stays_in_its_vector(axis):
    x = np.moveaxis(np.array([[[2.0, -2.0, 1.0], [1.0, 0.0, np.nan]]], np.float32), 2, axis)
    dy = np.moveaxis(np.array([[[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]], np.float32), 2, axis)
    y, dx = (np.moveaxis(a, axis, 2) for a in run(x, dy, p=math.inf, axis=axis))
    np.testing.assert_allclose(dx[0, 0], [-1 / 8, 1 / 8, 1 / 2])
    assert np.isnan(y[0, 1]).all() and np.isnan(dx[0, 1]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("place", ["odd rows", "columns", "odd columns"])
def test_16_bits_are_rounded_once(place, p, dtype):
    shape, axis = PLACES[place]
    x, dy = (rng.standard_normal((2, *shape)) * 8).round() / 8  # eighths: exact in both
    for a, b in zip(
        run(*(v.astype(np.float32) for v in (x, dy)), dtype, p=p, axis=axis),
        run(x, dy, "float64", where="cpu", p=p, axis=axis),
        strict=True,
    ):
        values = from_bits(a) if dtype == "bfloat16" else a.astype(np.float32)
        np.testing.assert_allclose(values, b, rtol=2**-8 if dtype == "bfloat16" else 2**-10, atol=1e-5)
