"""The networks of examples/: every file is right, and has the size that its comments claim. Their gradients beside torch:
tests/peers/test_examples.py."""

import math
import pathlib

import pytest

from normcore.config.config import load
from normcore.graph.build import build

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").rglob("*.yaml"))
# Published: AlexNet and GoogLeNet as Caffe trains them (the latter without its auxiliary classifiers), ResNet as torchvision.
PARAMETERS = {"alexnet": 60_965_224, "resnet18": 11_689_512, "googlenet": 6_998_552}


def graph_of(config):
    return build(config.network, config.input or config.source.load(config.base).shape, 2, "float32")


def count(graph):
    return sum(math.prod(a.shape) for node in graph.nodes for a in node.plan.parameters.values())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "examples")))
def test_every_example_is_explained_and_right(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# "), "say what it shows"
    name = file.relative_to(ROOT)
    assert any(f"normcore train {name}" in line for line in lines), "say how to run it"
    assert graph_of(load(file)).output.tensor.shape[0] == 2


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name):
    assert count(graph_of(load(ROOT / "examples" / f"{name}.yaml"))) == PARAMETERS[name]


def test_alexnet_is_the_papers():
    """Maps of 55, 27 and 13; two groups in convolutions 2, 4 and 5; sums of squares with k = 2; biases of one."""
    config = load(ROOT / "examples" / "alexnet.yaml")
    nodes = {node.path: node for node in graph_of(config).nodes}
    maps = [nodes[f"conv{k}"].outputs[0].tensor.shape for k in range(1, 6)]
    assert maps == [(2, 96, 55, 55), (2, 256, 27, 27), (2, 384, 13, 13), (2, 384, 13, 13), (2, 256, 13, 13)]
    assert [nodes[f"conv{k}"].op.groups for k in range(1, 6)] == [1, 2, 1, 2, 2]
    norm = nodes["local_response_norm1"].op
    assert (norm.k, norm.size, norm.alpha, norm.beta, norm.alpha_scaling) == (2.0, 5, 1e-4, 0.75, "sum")
    ones = [path for path, node in nodes.items() if "bias" in node.inits]
    assert ones == ["conv2", "conv4", "conv5", "dense1", "dense2"]
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (
        0.01,
        0.9,
        5e-4,
    )


def test_resnet20_has_twenty_layers():
    nodes = graph_of(load(ROOT / "examples" / "resnet20.yaml")).nodes
    body = [n for n in nodes if n.op.name in ("conv", "dense") and "shortcut" not in n.path]
    assert len(body) == 20
    assert sum("shortcut" in n.path and n.op.name == "conv" for n in nodes) == 2
