"""The polynomials behind math.* in CPU kernels: 2 ulp everywhere, specials, vectorization, uncompiled use."""

import math
import re
import types

import numpy as np
import pytest
from llvmlite import binding

from normcore.kernels import bits, cpu, inline, store, variant
from normcore.kernels.scalar_math import CPU_MATH
from normcore.testing.ulps import float32_line, ulps

NAMES = ("exp", "expm1", "log", "log1p", "tanh", "erf", "erfc", "sin", "cos")
# Largest errors found on all 2^32 arguments, rounded up; the promise is 2. The spare hundredths cover NumPy's
# own.
BARS = {
    "exp": 1.66, "expm1": 1.62, "log": 0.95, "log1p": 1.7, "tanh": 1.97, "erf": 1.5, "erfc": 2.0,
    "sin": 1.75, "cos": 1.75,
}  # fmt: skip
EDGES = (
    0.3475,
    0.4765,
    0.6,
    0.7853982,
    1.15,
    3.92,
    9.01,
    9.5,
    10.06,
    10.2,
    18.0,
    88.72284,
    89.0,
    103.97,
    104.0,
    2 / 3,
    1 / 3,
)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan]
SPECIAL_VALUES = {
    "exp": [1.0, 1.0, np.inf, 0.0, np.nan],
    "expm1": [0.0, -0.0, np.inf, -1.0, np.nan],
    "log": [-np.inf, -np.inf, np.inf, np.nan, np.nan],
    "log1p": [0.0, -0.0, np.inf, np.nan, np.nan],
    "tanh": [0.0, -0.0, 1.0, -1.0, np.nan],
    "erf": [0.0, -0.0, 1.0, -1.0, np.nan],
    "erfc": [1.0, 1.0, 0.0, 2.0, np.nan],
    "sin": [0.0, -0.0, np.nan, np.nan, np.nan],
    "cos": [1.0, 1.0, np.nan, np.nan, np.nan],
}


@inline
def _loops(x, y):
    for i in range(x.size):
        y[0, i] = math.exp(x[i])
    for i in range(x.size):
        y[1, i] = math.expm1(x[i])
    for i in range(x.size):
        y[2, i] = math.log(x[i])
    for i in range(x.size):
        y[3, i] = math.log1p(x[i])
    for i in range(x.size):
        y[4, i] = math.tanh(x[i])


@cpu
def scalar_math_double(x, y):
    _loops(x, y)


@cpu
def scalar_math_single(x, y):
    _loops(x, y)
    for i in range(x.size):
        y[5, i] = math.erf(x[i])
    for i in range(x.size):
        y[6, i] = math.erfc(x[i])
    for i in range(x.size):
        y[7, i] = math.sin(x[i])
    for i in range(x.size):
        y[8, i] = math.cos(x[i])


KERNELS = {"float32": scalar_math_single, "float64": scalar_math_double}


def compute(x):
    """Rows of y in the order of NAMES, by a serial kernel."""
    kernel = KERNELS[x.dtype.name]
    y = np.empty((9 if x.dtype == np.float32 else 5, x.size), x.dtype)
    kernel[types.SimpleNamespace(variant=variant(x.dtype.name, parallel=False))](x, y)
    return dict(zip(NAMES, y))


def exact(name, x, wider):
    with np.errstate(all="ignore"):  # signalling NaN among the patterns
        x = x.astype(wider)
        if name in ("erf", "erfc"):
            return np.fromiter(map(getattr(math, name), x.tolist()), np.float64, x.size)
        return getattr(np, name)(x)


@pytest.fixture(scope="module")
def single():
    x = float32_line(4099, EDGES)
    return x, compute(x)


@pytest.fixture(scope="module")
def double():
    draw = np.random.default_rng(5)
    bits = draw.integers(-(2**63), 2**63 - 1, 50_000).view(np.float64)
    scales = draw.uniform(-1, 1, 50_000) * 10.0 ** draw.uniform(-18, 3, 50_000)
    x = np.concatenate(
        [bits, scales, draw.uniform(-1, 2, 50_000), SPECIAL, [5e-324, 2.2e-308, 709.78, 709.79, -745.2]]
    )
    return x, compute(x)


@pytest.mark.parametrize("name", NAMES)
def test_float32_error_over_the_whole_line(single, name):
    x, y = single
    error = ulps(y[name], exact(name, x, np.float64))
    worst = error.argmax()
    assert error[worst] <= BARS[name] <= 2, f"{name}({x[worst]!r}) gave {y[name][worst]!r}"


@pytest.mark.parametrize("name", NAMES[:5])
def test_float64_error(double, name):
    x, y = double
    # Where long double is no wider than double, the reference itself is off by up to an ulp.
    bar = 2.0 if np.finfo(np.longdouble).nmant > 60 else 3.0
    error = ulps(y[name], exact(name, x, np.longdouble))
    worst = error.argmax()
    assert error[worst] <= bar, f"{name}({x[worst]!r}) gave {y[name][worst]!r}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_and_the_sign_of_zero(dtype):
    y = compute(np.array(SPECIAL, dtype))
    for name, row in y.items():
        np.testing.assert_array_equal(row, np.array(SPECIAL_VALUES[name], dtype), err_msg=name)
        numbers = ~np.isnan(row)
        signs = np.signbit(np.array(SPECIAL_VALUES[name], dtype))
        np.testing.assert_array_equal(np.signbit(row)[numbers], signs[numbers], err_msg=name)


def test_domain_ends_of_the_logarithms():
    y = compute(np.array([-1.0, -1.5, -1e-45, np.nextafter(np.float32(-1), np.float32(0))], np.float32))
    assert y["log1p"][0] == -np.inf and np.isnan(y["log1p"][1])
    assert np.isnan(y["log"][[0, 1, 2]]).all()
    assert y["log1p"][3] == np.float32(math.log(2.0**-24))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_loop_vectorizes_in_its_own_precision(dtype):
    features = binding.get_host_cpu_features()
    if not (features.get("avx512dq") or features.get("avx2")):
        pytest.skip("judged on AVX2 and AVX-512 only")
    text = KERNELS[dtype].text(variant(dtype, parallel=False)).replace("cache=True", "cache=False")
    module = store.load("vectorization", text.replace("kernel = ", "kernel = uncached = "))
    kernel = module.uncached
    kernel(np.ones(3, dtype), np.ones((9, 3), dtype))
    ir = kernel.inspect_llvm(kernel.signatures[0])
    loops = len(re.findall(r"^vector\.body[.\w]*:", ir, re.MULTILINE))
    assert loops >= (9 if dtype == "float32" else 5)
    if dtype == "float32":
        assert not re.search(r"fpext|fptrunc|x double>", ir), "double arithmetic in a float32 kernel"
    if features.get("avx512f"):
        assert "zmm" in kernel.inspect_asm(kernel.signatures[0])


def test_uncompiled_functions_agree_with_compiled_ones():
    x = np.array([-20.0, -1.5, -0.3, 1e-30, 0.2, 0.5, 1.0, 1.3, 3.0, 12.0], np.float32)
    y = compute(x)
    with np.errstate(all="ignore"):
        for name, function in CPU_MATH["float32"].items():
            plain = np.array([function(v) for v in x])
            assert plain.dtype == np.float32
            # A compiled kernel fuses multiply and add; plain Python rounds twice.
            np.testing.assert_allclose(plain, y[name], rtol=6e-7, err_msg=name)
        for name, function in CPU_MATH["float64"].items():
            plain = np.array([function(v) for v in x.astype(np.float64)])
            np.testing.assert_allclose(plain, exact(name, x, np.float64), rtol=1e-15, err_msg=name)


def test_bit_casts_go_both_ways_uncompiled():
    for value in (np.float32(-1.5), np.float64(0.1), np.float32(-0.0)):
        pattern = bits.bits_of(value)
        assert pattern.dtype.kind == "i" and pattern.dtype.itemsize == value.dtype.itemsize
        back = bits.float_bits(pattern)
        assert back == value and np.signbit(back) == np.signbit(value) and back.dtype == value.dtype
    with pytest.raises(KeyError):
        bits.bits_of(np.int32(1))
