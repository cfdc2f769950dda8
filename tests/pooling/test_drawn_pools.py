"""stochastic_pool and fractional_max_pool: their draws, the rules where the papers are silent, PyTorch's sequences.
Conformance covers the rest."""

import numba
import numpy as np
import pytest

import normcore
from normcore import random
from normcore.errors import ParameterError, ShapeError

FORMATS = ("channels_first", "channels_last")


def stochastic(shape, memory_format="channels_first", dtype="float32", **parameters):
    return normcore.layer(
        "stochastic_pool", input_shape=shape, dtype=dtype, memory_format=memory_format, **parameters
    )


def test_an_element_is_drawn_as_often_as_its_share_of_the_sum():
    x = np.broadcast_to(np.array([1, 0, 3, 6, -5], np.float32), (40, 250, 5)).copy()
    y = stochastic(x.shape, kernel_size=5).forward(x)
    counts = {v: int((y == v).sum()) for v in (1, 3, 6)}
    assert sum(counts.values()) == y.size  # neither zero nor a negative value is ever drawn
    for value, count in counts.items():
        share = value / 10
        assert abs(count / y.size - share) < 4 * np.sqrt(share * (1 - share) / y.size)


def test_inference_is_the_mean_of_many_draws():
    x = np.broadcast_to(np.array([2, 4, 1, 3], np.float32).reshape(2, 2), (100, 100, 2, 2)).copy()
    pool = stochastic(x.shape, kernel_size=2)
    expected = pool.forward(x, training=False)[0, 0, 0, 0]
    assert expected == pytest.approx((4 + 16 + 1 + 9) / 10)
    assert pool.forward(x).mean() == pytest.approx(expected, abs=4 * 1.05 / 100)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_goes_to_the_element_drawn(memory_format):
    x = np.arange(1, 2 * 3 * 6 * 6 + 1, dtype=np.float32).reshape(2, 3, 6, 6)
    pool = stochastic(x.shape, memory_format, kernel_size=2)
    y = np.array(pool.forward(x))
    dy = np.arange(1, y.size + 1, dtype=np.float32).reshape(y.shape)
    dx = pool.backward(dy)
    assert dx.sum() == dy.sum() and np.array_equal(np.sort(x[dx != 0]), np.sort(y.ravel()))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_windows_without_a_positive_value(memory_format):
    """All elements are equally likely: zeros stay zero, of negative values one is drawn."""
    x = np.zeros((50, 60, 1, 4), np.float32)
    x[:, 30:] = [-1, -2, -3, -4]
    pool = stochastic(x.shape, memory_format, kernel_size=(1, 4))
    y = pool.forward(x)
    assert not y[:, :30].any()
    drawn, counts = np.unique(y[:, 30:], return_counts=True)
    assert drawn.tolist() == [-4, -3, -2, -1] and counts.min() > 375 - 4 * 17
    assert np.all(pool.backward(np.ones_like(y)).sum((2, 3)) == 1)
    y = pool.forward(x, training=False)
    assert not y[:, :30].any() and np.all(y[:, 30:] == -2.5)
    assert np.all(pool.backward(np.ones_like(y)) == 0.25)


@pytest.mark.parametrize("training", [True, False])
def test_sums_that_are_not_finite(training):
    x = np.array([[1, np.inf, 2], [3e38, 2e38, 1e38], [1, np.nan, 2]], np.float32).reshape(1, 3, 3)
    pool = stochastic(x.shape, kernel_size=3)
    y = pool.forward(x, training=training)[0, :, 0]
    assert y[0] == np.inf and y[1] == np.float32(3e38) and np.isnan(y[2])
    dx = pool.backward(np.ones((1, 3, 1), np.float32))
    assert dx[0].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ((2, 5, 37, 41), {"kernel_size": 3, "stride": 2}),  # lines of several rows and planes
        ((1, 150, 9, 11), {"kernel_size": (2, 3), "stride": 1}),  # more channels than a line takes
        ((1, 17, 3, 1100), {"kernel_size": (3, 1), "stride": 1}),  # more positions than are drawn for at once
        ((2, 3, 40, 39), {"kernel_size": 19, "stride": 5}),  # more taps than a byte counts
    ],
)
def test_lines_are_cut_anywhere(memory_format, shape, parameters):
    """Beside windows that hold no positive value, or one that is not finite."""
    rng = np.random.default_rng(2)
    x = np.round(rng.standard_normal(shape)).astype(np.float32)
    x.reshape(-1)[rng.integers(0, x.size, 9)] = np.inf
    pool = stochastic(shape, memory_format, **parameters)
    for training in (True, False):
        y = pool.forward(x, training=training)
        with np.errstate(invalid="ignore"):
            expected = pool.op.reference(x, training=training, key=pool._binding.t.key)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["stochastic_pool", "fractional_max_pool"])
def test_the_same_bits_for_any_threads_and_format(op):
    shape = (3, 19, 14, 15)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    more = {"output_size": 7} if op == "fractional_max_pool" else {}
    found = set()
    before = numba.get_num_threads()
    try:
        for threads in sorted({1, min(2, before)}):
            numba.set_num_threads(threads)
            for memory_format in FORMATS:
                pool = normcore.layer(
                    op, input_shape=shape, memory_format=memory_format, kernel_size=2, **more
                )
                y = pool.forward(x)
                found.add((y.tobytes(), pool.backward(np.sin(y)).tobytes()))
    finally:
        numba.set_num_threads(before)
    assert len(found) == 1


def test_fractional_windows_reach_the_end_and_differ_from_call_to_call():
    x = np.arange(23, dtype=np.float32).reshape(1, 1, 23)  # the maximum is the window's last element
    pool = normcore.layer("fractional_max_pool", input_shape=x.shape, kernel_size=2, output_ratio=0.6)
    ends = [pool.forward(x)[0, 0].astype(int).tolist() for _ in range(8)]
    assert len({tuple(e) for e in ends}) > 2
    for e in ends:
        assert e[-1] == 22 and len(e) == 13 and e[0] == 1 and set(np.diff(e)) <= {1, 2}
    still = [pool.forward(x, training=False).tobytes() for _ in range(3)]
    assert len(set(still)) == 1


@pytest.mark.parametrize("memory_format", FORMATS)
def test_of_several_nan_the_last_in_the_window_is_the_maximum(memory_format):
    x = np.zeros((1, 2, 3, 3), np.float32)
    x[0, 1, 0, 1] = x[0, 1, 1, 0] = np.nan
    parameters = {"kernel_size": 2, "output_size": 1, "return_indices": True}
    y, indices = normcore.layer(
        "fractional_max_pool", input_shape=x.shape, memory_format=memory_format, **parameters
    ).forward(x)
    assert y.ravel().tolist() == [0, 0] and indices.ravel().tolist() == [4, 4]  # the window at the end
    x[0, 1, 1, 2] = x[0, 1, 2, 1] = np.nan
    y, indices = normcore.layer(
        "fractional_max_pool", input_shape=x.shape, memory_format=memory_format, **parameters
    ).forward(x)
    assert np.isnan(y[0, 1]) and indices.ravel().tolist() == [4, 7]


def test_fractional_errors_print_the_arithmetic():
    with pytest.raises(ShapeError, match=r"4 = floor\(5 \* 0.8\) windows of 3 need at least 4 \+ 3 - 1 = 6"):
        normcore.layer("fractional_max_pool", input_shape=(1, 2, 5), kernel_size=3, output_ratio=0.8)
    with pytest.raises(ParameterError, match="exactly one"):
        normcore.layer(
            "fractional_max_pool", input_shape=(1, 2, 5), kernel_size=1, output_ratio=0.8, output_size=2
        )


@pytest.mark.peers
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_agrees_on_fractional_sequences(memory_format, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    compared = 0
    for _ in range(60):
        rank = int(rng.integers(2, 4))
        kernel = tuple(int(k) for k in rng.integers(1, 4, rank))
        size = tuple(int(rng.integers(k + 1, 16)) for k in kernel)
        # PyTorch's 3-D form refuses windows that all stand one apart.
        most = 2 if rank == 2 else 1
        out = tuple(int(rng.integers(1, s - k + most)) for s, k in zip(size, kernel, strict=True))
        shape = (2, 3, *size)
        x = rng.integers(-9, 10, shape).astype(dtype)  # many ties
        pool = normcore.layer(
            "fractional_max_pool",
            input_shape=shape,
            dtype=dtype,
            memory_format=memory_format,
            kernel_size=kernel,
            output_size=out,
            return_indices=True,
        )
        y, indices = pool.forward(x)
        u = random.uniform(int(pool._binding.t.key), (2, 3, rank), "float32", 0).astype(dtype)
        u = u[..., ::-1].copy() if rank == 2 else u  # PyTorch's 2-D form takes width first
        function = getattr(torch.nn.functional, f"fractional_max_pool{rank}d_with_indices")
        tx = torch.tensor(x, requires_grad=True)
        ty, expected = function(tx, kernel, output_size=out, _random_samples=torch.tensor(u))
        assert np.array_equal(y, ty.detach().numpy()), (shape, kernel, out)
        assert np.array_equal(indices, expected.numpy()), (shape, kernel, out)
        dy = rng.integers(-3, 4, y.shape).astype(dtype)  # sums are exact
        ty.backward(torch.tensor(dy))
        assert np.array_equal(pool.backward(dy), tx.grad.numpy()), (shape, kernel, out)
        compared += 1
    assert compared == 60
