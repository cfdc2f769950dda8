"""Pools against torch over random shapes and parameters: outputs, indices and gradients, ties and cut windows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normcore
from normcore.errors import ParameterError, ShapeError

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
F = torch.nn.functional
pytestmark = pytest.mark.peers

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def windows(draw, dilated=False):
    """(shape, rank, parameters, memory format, seed) of a sliding window."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    kernel = each(1, 4)
    parameters = {
        "kernel_size": kernel,
        "stride": each(1, 4),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        parameters["dilation"] = each(1, 2)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 20)), *each(1, 10))
    return (
        shape,
        rank,
        parameters,
        draw(st.sampled_from(["channels_first", "channels_last"])),
        draw(st.integers(0, 99)),
    )


def compare(name, shape, memory_format, seed, parameters, peer):
    """Whole numbers: sums are exact, ties are many. Where torch refuses, so must the layer; and where it gives -inf for a
    window of nothing but padding."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, shape).astype(np.float32)
    tx = torch.tensor(x, requires_grad=True)
    try:
        theirs = peer(tx)
    except RuntimeError as refused:
        if "smaller than kernel size" in str(refused):
            return  # torch's three-dimensional average does not count the padding here
        with pytest.raises((ShapeError, ParameterError)):
            normcore.layer(name, input_shape=shape, memory_format=memory_format, **parameters)
        return
    values = theirs[0] if isinstance(theirs, tuple) else theirs
    if not values.isfinite().all():
        with pytest.raises(ShapeError, match="nothing but padding"):
            normcore.layer(name, input_shape=shape, memory_format=memory_format, **parameters)
        return
    pool = normcore.layer(name, input_shape=shape, memory_format=memory_format, **parameters)
    ours = pool.forward(x)
    if isinstance(theirs, tuple):
        assert np.array_equal(ours[1], theirs[1].numpy())
        ours = ours[0]
    np.testing.assert_allclose(ours, values.detach().numpy(), rtol=1e-6, atol=1e-6)
    dy = rng.integers(-3, 4, ours.shape).astype(np.float32)
    values.backward(torch.tensor(dy))
    np.testing.assert_allclose(pool.backward(dy), tx.grad.numpy(), rtol=1e-6, atol=1e-6)


def check_extremes(case):
    shape, rank, parameters, memory_format, seed = case
    given_too = {**parameters, "return_indices": True}
    pool = getattr(F, f"max_pool{rank}d")
    compare("max_pool", shape, memory_format, seed, given_too, lambda x: pool(x, **given_too))


def check_averages(case, count_include_pad, divisor):
    shape, rank, parameters, memory_format, seed = case
    more = {"count_include_pad": count_include_pad}
    if rank > 1:
        more["divisor_override"] = divisor
    pool = getattr(F, f"avg_pool{rank}d")
    both = {**parameters, **more}
    compare("avg_pool", shape, memory_format, seed, both, lambda x: pool(x, **both))


@st.composite
def bins(draw):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(rank))
    out = tuple(draw(st.integers(1, 7)) for _ in range(rank))
    format = draw(st.sampled_from(["channels_first", "channels_last"]))
    return (2, draw(st.integers(1, 20)), *shape), out, format, draw(st.integers(0, 99))


def check_bins(case):
    shape, out, format, seed = case
    rank = len(out)
    mean, most = (getattr(F, f"adaptive_{kind}_pool{rank}d") for kind in ("avg", "max"))
    compare("adaptive_avg_pool", shape, format, seed, {"output_size": out}, lambda x: mean(x, out))
    both = {"output_size": out, "return_indices": True}
    compare("adaptive_max_pool", shape, format, seed, both, lambda x: most(x, out, True))


@given(windows(dilated=True))
@QUICK
def test_max_pool(case):
    check_extremes(case)


@given(windows(), st.booleans(), st.sampled_from([None, None, 3, 7]))
@QUICK
def test_avg_pool(case, count_include_pad, divisor):
    check_averages(case, count_include_pad, divisor)


@given(bins())
@QUICK
def test_adaptive_pools(case):
    check_bins(case)


@pytest.mark.slow
@given(windows(dilated=True))
@LONG
def test_max_pool_long(case):
    check_extremes(case)


@pytest.mark.slow
@given(windows(), st.booleans(), st.sampled_from([None, None, 3, 7]))
@LONG
def test_avg_pool_long(case, count_include_pad, divisor):
    check_averages(case, count_include_pad, divisor)


@pytest.mark.slow
@given(bins())
@LONG
def test_adaptive_pools_long(case):
    check_bins(case)
