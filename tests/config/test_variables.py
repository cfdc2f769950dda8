"""`${name}` from the vars: section."""

from typing import Any

import pytest

NET = "input: [3, 8, 8]\nvars: {vars}\nnetwork:\n  - {layer}\n"


def net(variables: str, layer: str) -> str:
    return NET.replace("{vars}", variables).replace("{layer}", layer)


def test_a_whole_scalar_keeps_its_type(read: Any) -> None:
    layer = "{conv: {out_channels: '${n}', kernel_size: '${size}', bias: '${b}'}}"
    config = read(net("{n: 8, size: [1, 3], b: false}", layer))
    op = config.network[0].op
    assert (op.out_channels, op.kernel_size, op.bias) == (8, (1, 3), False)


def test_inside_text_it_is_text(read: Any) -> None:
    config = read(net("{n: 8, rate: 5e-4, on: true}", "relu") + "name: net-${n}-${rate}-${on}-$${n}\n")
    assert config.name == "net-8-0.0005-true-${n}"


def test_layers_keys_and_nested_variables(read: Any) -> None:
    text = (
        net("{norm: batch_norm, small: 1e-3, args: {eps: '${small}'}}", "${norm}: ${args}") + "  - ${norm}\n"
    )
    first, second = read(text).network
    assert (first.op.eps, second.op.eps) == (1e-3, 1e-5)
    assert read(text).resolved["network"] == [{"batch_norm": {"eps": 1e-3}}, "batch_norm"]


@pytest.mark.parametrize(
    ("variables", "layer", "problem"),
    [
        ("{act: relu}", "${atc}", "4:5: unknown variable 'atc'; did you mean 'act'?"),
        ("", "${act}", "4:5: unknown variable 'act'; there is no vars: section"),
        ("{act: rleu}", "${act}", "4:5: unknown op 'rleu'; did you mean 'relu'?"),
        ("{a: '${b}', b: '${a}'}", "relu", "2:22: variables go around in a circle: a -> b -> a"),
        ("{a: [1]}", "{conv: 'x${a}'}", "4:12: variable 'a' is a list; it cannot stand inside text"),
        ("3", "relu", "2:7: vars: expected a mapping of names to values, such as vars: {act: relu}"),
        ("{a b: 3}", "relu", "2:8: a variable's name is letters, digits and _, got 'a b'"),
        ("{n: x}", "{conv: '${n}'}", "4:12: conv.out_channels: expected a whole number, got the text 'x'"),
    ],
)
def test_faults(read: Any, variables: str, layer: str, problem: str) -> None:
    assert read.problems(net(variables, layer)) == [f"net.yaml:{problem}"]
