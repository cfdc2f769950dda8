import numpy as np
import pytest

import normcore


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_mean_and_gradient(memory_format):
    x = (np.random.default_rng(0).standard_normal((3, 37, 29, 31)) + 1000).astype(np.float32)
    pool = normcore.layer("global_avg_pool", input_shape=x.shape, memory_format=memory_format, keepdims=False)
    y = pool.forward(x)
    assert y.shape == (3, 37)
    assert np.abs(y - x.mean((2, 3), dtype=np.float64)).max() < 1e-3
    dx = pool.backward(y)
    assert np.allclose(dx, np.broadcast_to(y[:, :, None, None] / (29 * 31), x.shape), rtol=1e-6)
