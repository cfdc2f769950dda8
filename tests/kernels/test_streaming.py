"""Blocks moved around the caches: whole and part lines at every offset, and the same bits as by ordinary stores."""

import numpy as np
import pytest
from normcore_normalization import (
    channel_layers,
    feature_rows,
    group_lines,
    group_planes,
    lp_norm,
)

import normcore
from normcore.elementwise_kernels import Chain, kernels
from normcore.kernels import cpu, inline, uncompiled, variant
from normcore.kernels.streaming import (
    STREAM_BLOCK,
    STREAM_STEP,
    either_way,
    first_stop,
    stack_block,
    stream_run,
)
from normcore.registry import default


class Run:
    """What kernels are chosen by."""

    def __init__(self, dtype):
        self.variant = variant(dtype, parallel=False)


@inline
def doubled(x, y):
    for i in range(y.size):
        y[i] = x[i] + x[i]


@inline(force=True)
def stream_doubled(x, y):
    block = stack_block(y)
    lo, hi = 0, first_stop(y)
    while lo < y.size:
        doubled(x[lo:hi], block[: hi - lo])
        stream_run(y, lo, block, hi - lo)
        lo, hi = hi, min(y.size, hi + STREAM_BLOCK)


@cpu
def _stream_doubled(x, y):
    stream_doubled(x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_offset_and_length(dtype):
    x = np.arange(3000, dtype=dtype)
    for offset in range(17):
        for count in (0, 1, 3, 15, 16, 17, 40, STREAM_BLOCK - 1, STREAM_BLOCK, 2 * STREAM_BLOCK + 21):
            found = np.full(3000, -1, dtype)
            _stream_doubled[Run(dtype)](x[:count], found[offset : offset + count])
            expected = np.full(3000, -1, dtype)
            expected[offset : offset + count] = 2 * x[:count]
            np.testing.assert_array_equal(found, expected)


@inline(force=True)
def sum_and_difference(x, z, y, w, factor):
    for i in range(y.size):
        y[i] = x[i] + factor * z[i]
        w[i] = x[i] - factor * z[i]


sums_either_way = either_way(sum_and_difference, read=["x", "z"], written=["y", "w"])


@cpu
def _sums_either_way(x, z, y, w, factor, far):
    sums_either_way(x, z, y, w, factor, far)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_results_at_any_offset_either_way(dtype):
    """The second array begins elsewhere in its line than the first."""
    x, z = np.arange(2000, dtype=dtype), np.arange(2000, dtype=dtype)[::-1].copy()
    for offset in (0, 1, 7, 15):
        for count in (0, 1, 15, 16, STREAM_STEP - 1, STREAM_STEP, STREAM_STEP + 16, 5 * STREAM_STEP + 37):
            for far in (False, True):
                found = np.full((2, 2000), -1, dtype)
                y, w = found[0, offset : offset + count], found[1, 3 : 3 + count]
                _sums_either_way[Run(dtype)](x[:count], z[:count], y, w, dtype_of(dtype)(2), far)
                expected = np.full((2, 2000), -1, dtype)
                expected[0, offset : offset + count] = x[:count] + 2 * z[:count]
                expected[1, 3 : 3 + count] = x[:count] - 2 * z[:count]
                np.testing.assert_array_equal(found, expected)


def dtype_of(name):
    return np.dtype(name).type


def test_stretches_are_taken_a_line_a_turn():
    """The stretch's loop ends with the mark, the one in the caches is left as it was written."""
    text = sums_either_way.namespace["sum_and_difference_stretch"].text
    assert text.rstrip().endswith("line_by_line()")
    assert "line_by_line" not in sum_and_difference.text


CASES = (
    ("batch_norm", "channels_first", channel_layers, "forward_planes", "backward_planes"),
    ("batch_norm", "channels_last", channel_layers, "forward_lines", "backward_lines"),
    ("layer_norm", "channels_first", feature_rows, "forward_rows", "backward_rows"),
    ("instance_norm", "channels_first", group_planes, "forward_groups", "backward_planes"),
    ("instance_norm", "channels_last", group_lines, "forward_lines", "backward_lines"),
    ("lp_norm", "channels_first", lp_norm, "forward_strips", None),
    ("lp_norm", "channels_last", lp_norm, "forward_rows", None),
)


@pytest.mark.parametrize(("op", "format", "module", "forward", "backward"), CASES)
def test_same_bits_as_ordinary_stores(op, format, module, forward, backward, monkeypatch):
    """Planes of more than a block, which begin anywhere in a line. Uncompiled, for both ways are in one kernel."""
    shape = (3, 5, 33, 37)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)

    def results():
        with uncompiled():
            layer = normcore.layer(op, shape, memory_format=format)
            return np.array(layer.forward(x, training=True)), np.array(layer.backward(dy))

    ordinary = results()
    for name in filter(None, (forward, backward)):
        kernel = getattr(module, name).with_constants(STREAM_BYTES=0)
        assert "STREAM_BYTES = 0" in kernel.text(variant("float32"))
        monkeypatch.setattr(module, name, kernel)
    for found, expected in zip(results(), ordinary, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_same_bits_of_elementwise_ops():
    """A whole chunk and a part of one; two arrays in and one out, three in and two out."""
    made = kernels(Chain((default().get("op", "multiply").component().stages()[0][0],)))
    rng = np.random.default_rng(0)
    a, b, dy = (rng.standard_normal(18446, np.float32) for _ in range(3))
    e = (np.float32(0),)

    def results(**constants):
        y, da, db = (np.empty_like(a) for _ in range(3))
        forward, backward = (k.with_constants(**constants) for k in (made.forward, made.backward))
        forward[Run("float32")](a, b, y, e)
        backward[Run("float32")](a, b, dy, da, db, e)
        return y, da, db

    for found, expected in zip(results(STREAM_BYTES=0), results(), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(results()[1], dy * b)
