"""--set key.path=value: where it may reach, how values are read, and what is said when it cannot."""

# ruff: noqa: E501  (whole messages, one a line)

import os
from typing import Any

import pytest

BASE = """\
vars: {act: relu}
data: {source: npz, path: digits.npz}
network:
  - conv: 8
  - ${act}
  - batch_norm
optimizer: sgd
train: {epochs: 10}
"""


def test_values_are_yaml(read: Any) -> None:
    config = read(
        BASE,
        "train.epochs=3",
        "train.clip_grad_norm=5e-1",
        "name=on",
        "data.augment=[{random_crop: {padding: 2}}]",
    )
    assert (config.train.epochs, config.train.clip_grad_norm, config.name) == (3, 0.5, "on")
    assert config.data.augment == ({"random_crop": {"padding": 2, "size": None}},)


def test_variables_and_list_items(read: Any) -> None:
    config = read(BASE, "vars.act=tanh", "network.0.conv=10", "network.2.batch_norm.eps=1e-3")
    assert [entry.op.name for entry in config.network] == ["conv", "tanh", "batch_norm"]
    assert config.network[0].op.out_channels == 10
    assert config.network[2].op.eps == 1e-3  # a bare name takes parameters


def test_sections_that_the_file_lacks(read: Any) -> None:
    config = read(
        "input: [3, 8, 8]\nnetwork: [relu]\n", "train.epochs=2", "optimizer.sgd.lr=0.5", "schedule=cosine"
    )
    assert (config.train.epochs, config.optimizer.lr, config.schedule.name) == (2, 0.5, "cosine")


def test_later_ones_win(read: Any) -> None:
    assert read(BASE, "train.epochs=3", "train.epochs=4").train.epochs == 4


def test_relative_paths(read: Any) -> None:
    assert read(BASE).source.path == str(read.folder / "digits.npz")
    assert read(BASE, "data.path=other.npz").source.path == os.path.abspath("other.npz")
    by_variable = BASE.replace("digits.npz}", "'${file}'}").replace("relu}", "relu, file: a.npz}")
    assert read(by_variable).source.path == str(read.folder / "a.npz")
    assert read(by_variable, "vars.file=b.npz").source.path == os.path.abspath("b.npz")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.epochs", "--set train.epochs: expected key=value, such as --set train.epochs=3"),
        ("=3", "--set =3: expected a key before '=', such as train.epochs=3"),
        ("train.epochs=many", "--set train.epochs: train.epochs: expected a whole number, got the text 'many'"),
        ("train.epoch=3", "--set train.epoch: train has no key 'epoch'; did you mean 'epochs'?"),
        ("trian.epochs=3", "--set trian.epochs: unknown key 'trian'; did you mean 'train'?"),
        ("network.7=relu", "--set network.7: network is a list; expected the number of an item (0 to 2), got '7'"),
        ("network.conv=8", "--set network.conv: network is a list; expected the number of an item (0 to 2), got 'conv'"),
        ("network.0.conv.bias=false", "--set network.0.conv.bias: network.0.conv is 8, which has no key 'bias'; set the whole of network.0.conv"),
        ("vars.atc=tanh", "--set vars.atc: the file uses no variable 'atc'; did you mean 'act'?"),
        ("optimizer.adam.lr=1", "--set optimizer.adam.lr: optimizer is 'sgd', which has no key 'adam'; set the whole of optimizer"),
    ],
)  # fmt: skip
def test_faults_name_the_override(read: Any, override: str, problem: str) -> None:
    assert read.problems(BASE, override) == [problem]


def test_bad_yaml_in_a_value(read: Any) -> None:
    (problem,) = read.problems(BASE, "data.augment=[a")
    assert problem.startswith("--set data.augment: this is not YAML")
    assert "not closed" in problem


def test_faults_of_file_and_overrides_come_together(read: Any) -> None:
    found = read.problems(BASE.replace("batch_norm", "batchnorm"), "train.epochs=x")
    assert len(found) == 2
    assert found[0].startswith("net.yaml:6:5: unknown op 'batchnorm'")
