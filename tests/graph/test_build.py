"""Names, connections and shapes of the graph that a configuration becomes."""

import numpy as np
import pytest

from normcore import Network
from normcore.binding import Binding
from normcore.devices import device as devices
from normcore.errors import ConfigError, PluginError
from normcore.op import Op, Plan, Tensor


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
        ([{"dense": {"out_features": 2, "bias": False, "bias_init": "zeros"}}], "this dense has no bias"),
    ],
    ids=["clash", "unknown-input", "unread", "residual-shapes", "rank", "window", "arity", "no-bias"],
)
def test_what_does_not_fit_is_explained(network, said):
    with pytest.raises(ConfigError, match=said):
        paths(network)


def test_all_layers_that_can_be_known_not_to_fit_are_named_at_once():
    wide = {"max_pool": {"kernel_size": 9}}
    body, shortcut = ["relu", wide, "batch_norm"], [{"conv": {"out_channels": 4, "kernel_size": 8}}]
    with pytest.raises(ConfigError) as raised:
        paths(
            [
                {"residual": {"body": body, "shortcut": shortcut}},
                {"relu": {}, "name": "a"},
                {"relu": {}, "name": "a", "inputs": ["none"]},
            ]
        )
    said = [p.message for p in raised.value.problems]
    for part in (
        "residual1.max_pool1 does not fit",
        "residual1.shortcut.conv1 does not fit",
        "'a'",
        "'none'",
    ):
        assert sum(part in line for line in said) == 1, (part, said)
    assert len(said) == 4  # and nothing about what stands behind them


def test_an_op_without_kernels_for_the_cpu_says_so():
    class OnlyCuda(Op, name="only_cuda"):
        def plan(self, x):
            return Plan(x.shape)

        def forward_cuda(self, t):
            raise AssertionError("not on the CPU")

    with pytest.raises(PluginError, match="only_cuda has no kernels for the CPU"):
        Binding(
            OnlyCuda(),
            (Tensor((2, 3)),),
            path="only_cuda1",
            dtype="float32",
            format="channels_first",
            device=devices.get("cpu"),
            seed=0,
        )


def test_a_residuals_scale_damps_its_body():
    network = [{"residual": {"body": ["relu"], "scale": 0.25}}]
    net = Network.from_mapping({"input": [3, 4, 4], "network": network, "loss": "mse"})
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(net.forward(x), x + 0.25 * np.maximum(x, 0), rtol=1e-6)
