"""Philox against the published vectors, the host against kernels, and what the numbers look like."""

import types

import numpy as np
import pytest

from normcore import random
from normcore.kernels import cpu, variant
from normcore.random import philox, uniform_32, uniform_64, unit_32

# Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@cpu
def _each(out_32, out_64, first, key, call, stream):
    for i in range(out_32.size):
        out_32[i] = uniform_32(key, first + i, call, stream)
        out_64[i] = uniform_64(key, first + i, call, stream)


@cpu
def _groups(out, key, call):
    for g in range(out.shape[0]):
        for j in range(32):
            w0, w1, w2, w3 = philox(key, 32 * g + j, call, 0)
            out[g, j] = unit_32(w0)
            out[g, 32 + j] = unit_32(w1)
            out[g, 64 + j] = unit_32(w2)
            out[g, 96 + j] = unit_32(w3)


def bound(dtype: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(variant=variant(dtype, parallel=False))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    """The three vectors that the authors publish, by both implementations."""
    block, long_key = counter[0] | counter[1] << 32, key[0] | key[1] << 32
    assert tuple(int(w) for w in philox(long_key, block, counter[2], counter[3])) == expected
    drawn = random.words(long_key, np.array([block], np.uint64), counter[2], counter[3])
    assert tuple(int(w) for w in drawn[0]) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("first", [0, 1000])
def test_kernel_and_host_agree_bit_for_bit(dtype, first):
    """A compiled kernel of either dtype gives what the host's arrays hold."""
    key = random.key_of(7, "dropout1")
    a, b = np.empty(700, np.float32), np.empty(700, np.float64)
    _each[bound(dtype)](a, b, first, np.uint64(key), 5, 2)
    np.testing.assert_array_equal(
        a, random.uniform(key, 1700, "float32", call=5, stream=2)[first : first + 700]
    )
    np.testing.assert_array_equal(
        b, random.uniform(key, 1700, "float64", call=5, stream=2)[first : first + 700]
    )


def test_python_and_host_agree_bit_for_bit():
    """The scalar functions run as plain Python too."""
    key = random.key_of(0, "x")
    host = random.uniform(key, (10, 30), "float32", call=1).reshape(-1)
    host_64 = random.uniform(key, (10, 30), "float64", call=1).reshape(-1)
    for i in (0, 1, 31, 32, 63, 64, 127, 128, 200, 299):
        assert uniform_32(key, i, 1, 0) == host[i]
        assert uniform_64(key, i, 1, 0) == host_64[i]


def test_four_elements_a_block():
    """The pattern of the module's docstring, written as a kernel."""
    key = random.key_of(0, "dropout1")
    out = np.empty((9, 128), np.float32)
    _groups[bound("float32")](out, np.uint64(key), 3)
    np.testing.assert_array_equal(out, random.uniform(key, (9, 128), "float32", call=3))


def test_large_draws_are_chunked_without_a_seam():
    """Blocks beyond the chunk size and a prefix agree: a number depends on its index only."""
    key = random.key_of(1, "w")
    long = random.uniform(key, 200_001)
    np.testing.assert_array_equal(long[:777], random.uniform(key, 777))
    blocks = np.array([40_000, 3, 2**40 + 1], np.uint64)
    np.testing.assert_array_equal(random.words(key, blocks)[0], random.words(key, 40_001)[40_000])
    assert tuple(random.words(key, blocks)[2]) == tuple(int(w) for w in philox(key, 2**40 + 1, 0, 0))


def test_unit_interval_is_half_open():
    """The largest word is still below 1 in both dtypes, the smallest is 0."""
    low, high = np.uint64(0), np.uint64(0xFFFFFFFF)
    assert random.unit_32(low) == 0.0
    assert random.unit_32(high) == np.float32(1.0) - np.float32(2.0**-24)
    assert random.unit_64(low, low) == 0.0
    assert random.unit_64(high, high) == 1.0 - 2.0**-53


def test_keys_are_stable_and_apart():
    """A key is the same in every process and release: runs of older versions must resume."""
    assert random.key_of(0, "conv1.weight") == 0xB91CF4933010A76D
    keys = {random.key_of(s, p) for s in (0, 1, -1, 10**30) for p in ("", "a", "b", "ab", "1")}
    assert len(keys) == 20


def test_calls_and_streams_are_independent():
    """Changing any of key, call and stream changes nearly every number, and they do not correlate."""
    rows = [
        random.uniform(random.key_of(s, "x"), 20_000, "float64", call=c, stream=t)
        for s, c, t in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    correlation = np.corrcoef(rows) - np.eye(4)
    assert np.abs(correlation).max() < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(dtype):
    """Mean, variance and 16 equal bins of uniforms; mean, variance, skew and kurtosis of normals (5
    sigma)."""
    n = 200_000
    u = random.uniform(random.key_of(3, "u"), n, dtype).astype(np.float64)
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    counts = np.histogram(u, bins=16, range=(0, 1))[0]
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 45  # chi squared, 15 degrees of freedom: p = 1e-4
    z = random.normal(random.key_of(3, "z"), n, dtype)
    assert z.dtype == dtype
    z = z.astype(np.float64)
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)


def test_normal_shapes():
    """Odd counts, several dimensions and none; float32 is the rounded float64."""
    key = random.key_of(0, "n")
    assert random.normal(key, (3, 5)).shape == (3, 5)
    assert random.normal(key, ()).shape == ()
    assert random.normal(key, 0).shape == (0,)
    np.testing.assert_array_equal(
        random.normal(key, 15), random.normal(key, (3, 5), "float64").astype("f4").reshape(-1)
    )


def test_permutation():
    """Every index once, another order for another call, and each place as likely as the next."""
    key = random.key_of(0, "data.order")
    order = random.permutation(key, 1000, call=4)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, random.permutation(key, 1000, call=4))
    assert (order != random.permutation(key, 1000, call=5)).mean() > 0.98
    first = [random.permutation(key, 5, call=c)[0] for c in range(1000)]
    assert np.abs(np.bincount(first, minlength=5) - 200).max() < 65  # 5 sigma
    assert random.permutation(key, 0).shape == (0,)


def test_words_buffer_allocates_nothing_large():
    """The buffered form works in its own memory and agrees with the plain one."""
    buffer = random.Words(600)
    blocks = np.arange(600)
    first = buffer.draw(9, blocks, 1, 2)
    again = buffer.draw(9, blocks[:10], 1, 2)
    assert np.shares_memory(first, again)
    np.testing.assert_array_equal(again, random.words(9, 10, 1, 2))
