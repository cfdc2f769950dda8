"""Beside what a user might write or pick instead: plain NumPy, plain Numba loops, onnxruntime for inference.

python -m pytest benches/test_peers.py [--save-results FILE]. All peers here are written the way one would without
looking further; torch is in test_ops.py.
"""

import numpy as np
import pytest

import normcore
from normcore.measuring.bench import rotation
from normcore.measuring.timer import interleave

SHAPE = (32, 96, 55, 55)
EPS = 1e-5


def numpy_batch_norm(x, gamma, beta):
    mean = x.mean((0, 2, 3), keepdims=True)
    var = x.var((0, 2, 3), keepdims=True)
    return gamma[:, None, None] * (x - mean) / np.sqrt(var + EPS) + beta[:, None, None]


def numpy_max_pool(x):
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2]
    return windows.max((4, 5))


NUMPY = {
    "relu": (lambda x: np.maximum(x, 0), {}),
    "tanh": (np.tanh, {}),
    "gelu": (
        lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
        {"approximate": "tanh"},
    ),
    "max_pool": (numpy_max_pool, {"kernel_size": 3, "stride": 2}),
}


def numba_peers():
    """Loops with @njit(parallel=True), as in any tutorial."""
    from numba import njit, prange

    @njit(parallel=True, fastmath=True)
    def relu(x):
        y = np.empty_like(x)
        flat, out = x.ravel(), y.ravel()
        for i in prange(flat.size):
            out[i] = max(flat[i], 0)
        return y

    @njit(parallel=True, fastmath=True)
    def max_pool(x):
        n, c, h, w = x.shape
        oh, ow = (h - 3) // 2 + 1, (w - 3) // 2 + 1
        y = np.empty((n, c, oh, ow), x.dtype)
        for k in prange(n * c):
            for i in range(oh):
                for j in range(ow):
                    best = x[k // c, k % c, 2 * i, 2 * j]
                    for a in range(3):
                        for b in range(3):
                            best = max(best, x[k // c, k % c, 2 * i + a, 2 * j + b])
                    y[k // c, k % c, i, j] = best
        return y

    @njit(parallel=True, fastmath=True)
    def batch_norm(x):
        y = np.empty_like(x)
        for k in prange(x.shape[1]):
            mean = x[:, k].mean()
            var = ((x[:, k] - mean) ** 2).mean()
            y[:, k] = (x[:, k] - mean) / np.sqrt(var + EPS)
        return y

    return {
        "relu": (relu, {}),
        "max_pool": (max_pool, {"kernel_size": 3, "stride": 2}),
        "batch_norm": (batch_norm, {}),
    }


def compare(benchmark, recorder, op, peer_name, peer, parameters, training=True):
    """Same values first, then times, interleaved."""
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(SHAPE, np.float32) for _ in range(2)]
    layer = normcore.layer(op, SHAPE, **parameters)
    ours = np.array(layer.forward(xs[0], training=training))
    np.testing.assert_allclose(peer(xs[0]), ours, rtol=1e-3, atol=1e-4)
    calls = {
        "normcore": rotation([lambda x=x: layer.forward(x, training=training) for x in xs]),
        peer_name: rotation([lambda x=x: peer(x) for x in xs]),
    }
    timing = interleave(calls, rounds=11, seconds=5)
    low, ratio, high = timing.ratio(peer_name, "normcore")
    found = {"ratio": ratio, "interval": [low, high], "normcore_s": timing.median("normcore")}
    benchmark.extra_info.update(found, peer=peer_name)
    recorder.add(f"{op} forward beside {peer_name}", **found)
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("op", NUMPY)
def test_numpy(benchmark, recorder, op):
    compare(benchmark, recorder, op, "NumPy", *NUMPY[op])


def test_numpy_batch_norm(benchmark, recorder):
    ones, zeros = np.ones(SHAPE[1], np.float32), np.zeros(SHAPE[1], np.float32)
    compare(benchmark, recorder, "batch_norm", "NumPy", lambda x: numpy_batch_norm(x, ones, zeros), {})


@pytest.mark.parametrize("op", ["relu", "max_pool", "batch_norm"])
def test_plain_numba(benchmark, recorder, op):
    compare(benchmark, recorder, op, "plain Numba", *numba_peers()[op])


# op: onnx's name, attributes, our parameters, arrays after the input
ONNX = {
    "relu": ("Relu", {}, {}, 0),
    "max_pool": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2]}, {"kernel_size": 3, "stride": 2}, 0),
    "batch_norm": ("BatchNormalization", {"epsilon": EPS}, {}, 4),
    "global_avg_pool": ("GlobalAveragePool", {}, {}, 0),
}


@pytest.mark.parametrize("op", ONNX)
def test_onnxruntime(benchmark, recorder, op):
    """Inference."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx onnxruntime")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxruntime")
    name, attributes, parameters, arrays = ONNX[op]
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    names = ["x", *(f"p{k}" for k in range(arrays))]
    values = [np.full(SHAPE[1], v, np.float32) for v in (1, 0, 0, 1)][:arrays]
    graph = helper.make_graph(
        [helper.make_node(name, names, ["y"], **attributes)],
        op,
        [helper.make_tensor_value_info("x", real, SHAPE)],
        [helper.make_tensor_value_info("y", real, None)],
        [onnx.numpy_helper.from_array(v, n) for v, n in zip(values, names[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    peer = lambda x: session.run(None, {"x": x})[0]
    compare(benchmark, recorder, op, "onnxruntime", peer, parameters, training=False)
