import numba
import numpy as np
import pytest

import normcore

SHAPE = (5, 11, 13, 7)


def mask(memory_format="channels_first", dtype="float32", seed=0, call=0, p=0.3, shape=SHAPE):
    layer = normcore.layer(
        "dropout", input_shape=shape, memory_format=memory_format, dtype=dtype, seed=seed, p=p
    )
    layer.call_number = call
    return np.array(layer.forward(np.ones(shape, dtype))) != 0


def test_the_mask_depends_on_seed_and_call_and_on_nothing_else():
    kept = mask()
    assert np.array_equal(kept, mask("channels_last"))
    assert np.array_equal(kept, mask(dtype="float64"))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert np.array_equal(kept, mask())
    finally:
        numba.set_num_threads(before)
    assert not np.array_equal(kept, mask(seed=1))
    assert not np.array_equal(kept, mask(call=1))


def test_the_mask_of_a_larger_batch_begins_with_that_of_a_smaller():
    assert np.array_equal(mask()[:3], mask(shape=(3, *SHAPE[1:])))


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_what_is_kept_is_scaled_and_backward_draws_the_same_mask(memory_format):
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    layer = normcore.layer("dropout", input_shape=SHAPE, memory_format=memory_format, p=0.25)
    for call in range(2):
        y = np.array(layer.forward(x))
        kept = y != 0
        assert abs(kept.mean() - 0.75) < 0.02
        assert np.allclose(y, np.where(kept, x / 0.75, 0), rtol=1e-6)
        assert np.array_equal(layer.backward(x), y), call


def test_inference_is_the_identity():
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    layer = normcore.layer("dropout", input_shape=SHAPE)
    assert np.array_equal(layer.forward(x, training=False), x)
    assert np.array_equal(layer.backward(x), x)


def test_the_ends_of_the_range():
    assert mask(p=0.0).all()
    assert not mask(p=1.0).any()
