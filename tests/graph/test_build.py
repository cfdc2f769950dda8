"""Names, connections and shapes of the graph that a configuration becomes."""

import numpy as np
import pytest

from normcore import Network
from normcore.errors import ConfigError


def paths(network, shape=(4, 6, 6)):
    net = Network.from_mapping({"input": list(shape), "network": network, "loss": "mse"})
    return [row.name for row in net.summary(2)]


def test_unnamed_layers_are_numbered_by_kind_and_named_ones_use_up_no_number():
    assert paths(["relu", {"batch_norm": {}, "name": "norm"}, "batch_norm", "relu"]) == [
        "relu1",
        "norm",
        "batch_norm1",
        "relu2",
    ]


def test_nested_paths_and_repeat():
    names = paths(
        [
            {"residual": {"body": ["batch_norm", "relu"], "shortcut": ["batch_norm"]}},
            {"repeat": {"times": 2, "layers": ["relu", {"residual": {"body": ["relu"]}}]}},
            {"branches": {"merge": "concat", "paths": [["relu"], ["batch_norm"]]}},
        ]
    )
    assert names == [
        "residual1.batch_norm1",
        "residual1.relu1",
        "residual1.shortcut.batch_norm1",
        "residual1.add",
        "relu1",
        "residual2.relu1",
        "residual2.add",
        "relu2",
        "residual3.relu1",
        "residual3.add",
        "branches1.path1.relu1",
        "branches1.path2.batch_norm1",
        "branches1.concat",
    ]


def test_named_inputs_replace_the_layer_before():
    net = Network.from_mapping(
        {
            "input": [3, 4, 4],
            "network": [
                {"relu": {}, "name": "stem"},
                {"batch_norm": {}, "name": "other", "inputs": ["input"]},
                {"add": {}, "inputs": ["stem", "other"]},
            ],
            "loss": "mse",
        }
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    expected = np.maximum(x, 0) + x / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ([{"relu": {}, "name": "a"}, {"batch_norm": {}, "name": "a"}], "two layers are called 'a'"),
        (["relu", {"add": {}, "inputs": ["relu1", "rleu1"]}], "did you mean 'relu1'"),
        (["relu", {"batch_norm": {}, "inputs": ["input"]}], "nobody reads its output"),
        ([{"residual": {"body": [{"max_pool": {"kernel_size": 2}}]}}], "a residual sums them"),
        (
            ["flatten", {"max_pool": {"kernel_size": 2}}],
            r"max_pool1 does not fit behind flatten1 .*\(N, 144\)",
        ),
        ([{"max_pool": {"kernel_size": 9}}], "max_pool1 does not fit behind input"),
        (["add"], "takes 2 inputs"),
    ],
    ids=["clash", "unknown-input", "unread", "residual-shapes", "rank", "window", "arity"],
)
def test_what_does_not_fit_is_explained(network, said):
    with pytest.raises(ConfigError, match=said):
        paths(network)


def test_a_residuals_scale_damps_its_body():
    network = [{"residual": {"body": ["relu"], "scale": 0.25}}]
    net = Network.from_mapping({"input": [3, 4, 4], "network": network, "loss": "mse"})
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(net.forward(x), x + 0.25 * np.maximum(x, 0), rtol=1e-6)
