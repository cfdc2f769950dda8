"""Whole configurations: sections, defaults, what is resolved, all faults at once, plugin files."""

# ruff: noqa: E501  (whole messages, one a line)

import textwrap
from pathlib import Path
from typing import Any

import pytest

from normcore.config.config import Config, differences, dump, from_mapping, load
from normcore.errors import ConfigError, PluginError

FULL = """\
name: lenet
seed: 7
data: {source: mnist_sample, batch_size: 32, normalize: standardize, augment: [{random_crop: {padding: 2}}, horizontal_flip]}
network:
  - conv: {out_channels: 8, weight_init: {normal: {std: 0.01}}}
  - residual: {body: [batch_norm, relu]}
loss: {cross_entropy: {label_smoothing: 0.1}}
optimizer: {sgd: {lr: 0.1, momentum: 0.9, weight_decay: 5e-4, no_decay: [gamma, beta, bias]}}
schedule: {cosine: {warmup_epochs: 1}}
train: {epochs: 3, clip_grad_norm: 1, clip_grad_value: null, population_statistics: exact}
start_from: {run: ../runs/base-1, freeze: ["conv*"], lr_multipliers: {"dense*": 10}}
"""

WRONG = """\
name: le/net
seed: "0"
seed: 3
data: {source: mnist_smple, batch_size: 6.0, normalize: standardise, augment: [{random_crop: {paddin: 2}}]}
nework: []
network:
  - batchnorm
  - conv: {out_channels: 8, foo: 1}
loss: cross_entrpy
optimizer: {sgd: {lr: 0.1}, adam: {}}
schedule: {cosine: {warmup_epoch: 1}}
train: {epochs: 1.0, clip_grad_norm: -1.0, population_statistics: moveing}
start_from: {freeze: "conv*", lr_multipliers: {"dense*": x}}
"""


def test_every_section(read: Any) -> None:
    config = read(FULL)
    assert (config.name, config.seed, config.data.batch_size, config.source.name) == (
        "lenet",
        7,
        32,
        "mnist_sample",
    )
    assert config.network[0].op.out_channels == 8
    assert config.loss.label_smoothing == 0.1
    assert (config.optimizer.momentum, config.optimizer.no_decay) == (0.9, ("gamma", "beta", "bias"))
    assert config.schedule.warmup_epochs == 1.0
    assert (config.train.epochs, config.train.population_statistics) == (3, "exact")
    assert config.start_from.run == str(read.folder.parent / "runs" / "base-1")
    assert config.start_from.lr_multipliers == {"dense*": 10.0}


def test_defaults(read: Any) -> None:
    config = read("input: [3, 8, 8]\nnetwork: [relu]\nloss:\ndata:\n")
    assert (config.name, config.seed, config.data, config.input) == ("net", 0, None, (3, 8, 8))
    assert (config.loss.name, config.schedule.name) == ("cross_entropy", "constant")
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.momentum) == ("sgd", 0.1, 0.9)
    assert config.train.epochs == 10


def test_resolved_reads_back_as_the_same(read: Any, registry: Any) -> None:
    config = read(FULL + "vars: {act: 'a ${price}: 3'}\n".replace("${", "$${"), "train.epochs=5")
    (read.folder / "elsewhere").mkdir()
    copy = read.folder / "elsewhere" / "config.yaml"
    copy.write_text(dump(config.resolved), encoding="utf-8")
    again = load(copy, registry=registry)
    assert again.resolved == config.resolved
    assert differences(config.resolved, again.resolved) == []
    assert again.start_from == config.start_from
    assert again.vars == {"act": "a ${price}: 3"}


def test_all_faults_at_once_in_the_files_order(read: Any) -> None:
    found = read.problems(WRONG)
    assert [text.partition(": ")[0].removeprefix("net.yaml:") for text in found] == [
        "1:7", "2:7", "3:1", "4:16", "4:41", "4:57", "4:95", "5:1", "7:5", "8:29",
        "9:7", "10:12", "11:21", "12:17", "12:38", "12:67", "13:1", "13:22", "13:58",
    ]  # fmt: skip
    assert "unknown data source 'mnist_smple'; did you mean 'mnist_sample'?" in found[3]
    assert "random_crop has no parameter 'paddin'; did you mean 'padding'?" in found[6]
    assert "unknown key 'nework'; did you mean 'network'?" in found[7]
    assert "unknown loss 'cross_entrpy'; did you mean 'cross_entropy'?" in found[10]
    assert "got several: sgd and adam" in found[11]
    assert "cosine has no parameter 'warmup_epoch'; did you mean 'warmup_epochs'?" in found[12]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "net.yaml: the file is empty; expected at least `network:` with a list of layers"),
        ("# nothing\n", "net.yaml: the file is empty; expected at least `network:` with a list of layers"),
        ("- relu\n", "net.yaml:1:1: expected a mapping with `network:` and other keys, got the list ['relu']"),
        ("input: [3]\n", "net.yaml:1:1: network is missing; give it a list of layers"),
        ("input: [3]\nnetwork: relu\n", "net.yaml:2:10: network: expected a list of layers, got the text 'relu'"),
        ("input: [3]\nnetwork: []\n", "net.yaml:2:10: network: expected at least one layer, got an empty list"),
        ("input: [0]\nnetwork: [relu]\n", "net.yaml:1:8: input: expected one sample's shape, such as [1, 28, 28], got the list [0]"),
        ("seed: -1\ninput: [3]\nnetwork: [relu]\n", "net.yaml:1:7: seed: expected a whole number from 0 to 2^63 - 1, got -1"),
        ("data: mnist_sample\nnetwork: [relu]\n", "net.yaml:1:7: data: expected a mapping such as {source: mnist_sample}, got the text 'mnist_sample'"),
        ("data: {source: npz}\nnetwork: [relu]\n", "net.yaml:1:16: data: path is missing; give it text"),
        ("data: {source: npz, path: 3}\nnetwork: [relu]\n", "net.yaml:1:27: data.path: expected text, got 3; put quotes around it"),
        ("data: {source: mnist_sample, path: x}\nnetwork: [relu]\n", "net.yaml:1:30: data has no key 'path'"),
        ("data: {source: mnist_sample, validation: 2}\nnetwork: [relu]\n", "net.yaml:1:42: data.validation: expected a share"),
        ("data: {source: mnist_sample, augment: cutout}\nnetwork: [relu]\n", "net.yaml:1:39: data.augment: expected a list such as [{name: parameters}], got the text 'cutout'"),
        ("input: [3]\nnetwork: [relu]\ntrain: 3\n", "net.yaml:3:8: train: expected a mapping such as {epochs: ...}, got 3"),
        ("input: [3]\nnetwork: [relu]\noptimizer: 3\n", "net.yaml:3:12: optimizer: expected one optimizer, a name or {name: parameters}, got 3"),
    ],
)  # fmt: skip
def test_single_faults(read: Any, text: str, problem: str) -> None:
    (found,) = read.problems(text)
    assert found.startswith(problem)


def test_neither_data_nor_input(read: Any) -> None:
    (found,) = read.problems("network: [relu]\n")
    assert "says neither `data:` nor `input:`" in found


def test_files_that_cannot_be_read(tmp_path: Path, registry: Any) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "absent.yaml", registry=registry)
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path, registry=registry)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: a\nseed: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2:7: byte 0xe9 is not UTF-8"):
        load(latin, registry=registry)


def test_from_python(registry: Any) -> None:
    config = from_mapping(
        {"input": (3, 8, 8), "network": ["relu", {"conv": 8}], "name": "x"}, registry=registry
    )
    assert isinstance(config, Config)
    assert (config.input, config.name, config.path) == ((3, 8, 8), "x", None)
    with pytest.raises(ConfigError) as caught:
        from_mapping(
            {"input": (3, 8, 8), "network": ["relu", {"conv": {"out_channels": "8"}}]}, registry=registry
        )
    assert str(caught.value) == (
        "network.1.conv.out_channels: conv.out_channels: expected a whole number, got the text '8'; remove the quotes"
    )


PLUGIN = textwrap.dedent(
    """
    import normcore

    @normcore.elementwise
    class twice:
        "2 x"
        def forward(x): return 2.0 * x
        def derivative(x, y): return 2.0

    @normcore.hookimpl
    def normcore_ops(): return [twice]
    """
)


def test_plugin_files_run_only_when_allowed(tmp_path: Path) -> None:
    from normcore.registry import Registry

    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    net = tmp_path / "net.yaml"
    net.write_text("plugins: [mine.py]\ninput: [3]\nnetwork: [twice]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(net, registry=Registry())
    assert "mine.py would run code; if you trust it, give --allow-plugins" in str(caught.value)
    config = load(net, registry=Registry(), allow_plugins=True)
    assert config.network[0].op.name == "twice"  # type: ignore[union-attr]
    assert config.plugins == (str(tmp_path / "mine.py"),)
    net.write_text("input: [3]\nnetwork: [twice]\n", encoding="utf-8")
    assert load(net, registry=Registry(), plugin_files=[tmp_path / "mine.py"]).network
    with pytest.raises(PluginError, match="there is no such file"):
        load(net, registry=Registry(), plugin_files=[tmp_path / "other.py"])


def test_differences_name_each_value(read: Any) -> None:
    before, after = (
        read(FULL).resolved,
        read(FULL, "train.epochs=9", "network.0.conv.out_channels=16").resolved,
    )
    assert differences(before, after) == ["network.0.conv.out_channels: 8, now 16", "train.epochs: 3, now 9"]
