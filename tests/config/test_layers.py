"""The network: section: forms of a layer, blocks, siblings, and one sentence for each mistake."""

# ruff: noqa: E501  (whole messages, one a line)

from typing import Any

import pytest

from normcore.config.entries import BranchesEntry, LayerEntry, RepeatEntry, ResidualEntry
from normcore.errors import ConfigError


def network(read: Any, text: str) -> Any:
    return read("input: [3, 8, 8]\nnetwork:\n" + text).network


def test_forms_of_a_layer(read: Any) -> None:
    bare, value, mapping, empty, alias, pair = network(
        read,
        "  - batch_norm\n  - conv: 8\n  - conv: {out_channels: 8, bias: false}\n  - relu:\n  - bn: 1\n  - resize: [3, 4]\n",
    )
    assert bare.op.eps == 1e-5
    assert value.op.out_channels == 8
    assert mapping.op.bias is False
    assert empty.op.name == "relu"
    assert (alias.op.name, alias.op.eps) == ("batch_norm", 1.0)
    assert isinstance(alias.op.eps, float)
    assert pair.op.size == (3, 4)


def test_nested_lists_become_tuples(read: Any) -> None:
    (entry,) = network(read, "  - conv: {out_channels: 8, padding: [[0, 1], 2]}\n")
    assert entry.op.padding == ((0, 1), 2)
    assert hash(entry.op)


def test_a_fault_is_not_told_of_the_default_in_its_place_too(read: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        network(read, "  - between: {low: 0.5, high: 0.1}\n")
    (problem,) = caught.value.problems
    assert "between.low: expected at most high, which is 0.1, got 0.5" in str(problem)


def test_siblings_initializers_and_place(read: Any) -> None:
    (entry,) = network(
        read,
        "  - conv: {out_channels: 8, weight_init: {normal: {std: 0.5}}, bias_init: {constant: 1}}\n    name: stem\n    inputs: [input]\n",
    )
    assert (entry.name, entry.inputs) == ("stem", ("input",))
    assert (entry.inits["weight"].std, entry.inits["bias"].value) == (0.5, 1.0)
    assert (entry.place.line, entry.place.column) == (3, 5)


def test_blocks(read: Any) -> None:
    residual, branches, repeat, short = network(
        read,
        "  - residual: {body: [relu], shortcut: [{conv: 3}], scale: 0.5}\n    name: block\n"
        "  - branches: {merge: add, paths: [[relu], []]}\n"
        "  - repeat: {times: 3, layers: [relu, batch_norm]}\n"
        "  - residual: [relu]\n",
    )
    assert isinstance(residual, ResidualEntry) and (residual.name, residual.scale) == ("block", 0.5)
    assert [e.op.name for e in residual.shortcut if isinstance(e, LayerEntry)] == ["conv"]
    assert isinstance(branches, BranchesEntry) and (branches.merge, len(branches.paths)) == ("add", 2)
    assert isinstance(repeat, RepeatEntry) and (repeat.times, len(repeat.layers)) == (3, 2)
    assert isinstance(short, ResidualEntry) and len(short.body) == 1


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ("rleu", "5: unknown op 'rleu'; did you mean 'relu'?"),
        ("residul: [relu]", "5: unknown op 'residul'; did you mean 'residual'?"),
        ("conv", "5: conv: out_channels is missing; give it a whole number"),
        ("conv: {kernel_size: 3}", "5: conv: out_channels is missing; give it a whole number"),
        ("conv: {out_chanels: 3, out_channels: 3}", "12: conv has no parameter 'out_chanels'; did you mean 'out_channels'?"),
        ("conv: '8'", "11: conv.out_channels: expected a whole number, got the text '8'; remove the quotes"),
        ("conv: 8.0", "11: conv.out_channels: expected a whole number, got 8.0; write 8"),
        ("conv: true", "11: conv.out_channels: expected a whole number, got true"),
        ("conv: 0", "11: conv.out_channels: expected a whole number, at least 1, got 0"),
        ("conv: {out_channels: 8, bias: on}", "35: conv.bias: expected true or false, got the text 'on'; write true"),
        ("conv: {out_channels: 8, kernel_size: [3, x]}", "46: conv.kernel_size: expected a whole number or a list of whole numbers, got the list [3, 'x'], in which item 1 is the text 'x'"),
        ("batch_norm: {momentum: none}", "28: batch_norm.momentum: expected a number or null, got the text 'none'; write null"),
        ("batch_norm: {mode: men}", "24: batch_norm.mode: expected 'mean' or 'sum', got the text 'men'; did you mean 'mean'?"),
        ("batch_norm: {gamma_init: {constnt: 3}}", "31: unknown initializer 'constnt'; did you mean 'constant'?"),
        ("batch_norm: {gamma_init: {constant: x}}", "41: constant.value: expected a number, got the text 'x'"),
        ("batch_norm: {weight_init: ones}", "18: batch_norm has no parameter 'weight_init'; did you mean 'gamma_init'?"),
        ("batch_norm: {name: x}", "18: batch_norm: 'name' stands beside batch_norm, not in it; move it one level out"),
        ("relu: 3", "11: relu takes no parameters, got 3; write it alone"),
        ("relu: {alpha: 3}", "12: relu has no parameter 'alpha'; it takes none"),
        ("{relu: null, tanh: null}", "18: expected one op in an item, got relu and tanh; give each a `- ` of its own"),
        ("conv:\n    out_channels: 3", "5: expected one op in an item, got conv and out_channels; out_channels must be indented further than conv"),
        ("{relu: null, nmae: x}", "18: expected one op in an item, got relu and nmae; did you mean 'name'?"),
        ("name: x", "5: expected an op's name, such as conv, beside name"),
        ("3", "5: expected a layer, got 3; such as relu or {dense: 10}"),
        ("[relu]", "5: expected a layer, got the list ['relu']; write its items one level further out"),
        ("{relu: null, name: input}", "24: name: expected letters, digits, _ and -, other than 'input' and 'lengths', got 'input'"),
        ("{relu: null, name: a.b}", "24: name: expected letters, digits, _ and -, other than 'input' and 'lengths', got 'a.b'"),
        ("{relu: null, inputs: []}", "26: inputs: expected names of layers, got an empty list"),
        ("residual: {shortcut: [relu]}", "5: residual: body is missing; give it a list of layers"),
        ("residual: {body: relu}", "22: residual.body: expected a list of layers, got the text 'relu'"),
        ("residual: {body: {relu: 3}}", "22: residual.body: expected a list of layers, one `- ` for each, got a mapping of relu"),
        ("residual: {body: []}", "22: residual.body: expected at least one layer, got an empty list"),
        ("branches: {merge: ad, paths: [[relu]]}", "23: branches.merge: expected 'concat' or 'add', got the text 'ad'; did you mean 'add'?"),
        ("branches: {paths: []}", "23: branches.paths: expected a list of lists of layers, got the list []"),
        ("repeat: {times: 0, layers: [relu]}", "21: repeat.times: expected a whole number, at least 1, got 0"),
        ("{repeat: {times: 2, layers: [relu]}, name: x}", "42: repeat takes no 'name': its layers stand in the list around it"),
        ("repeat: {times: 3, layers: [{residual: [{rpeat: {}}]}]}", "46: unknown op 'rpeat'; did you mean 'repeat'?"),
    ],
)  # fmt: skip
def test_faults(read: Any, layer: str, problem: str) -> None:
    (found,) = read.layer_problems(layer)
    line = 4 if "\n" in layer else 3
    assert found == f"net.yaml:{line}:{problem}"


def test_all_complaints_of_a_check_are_heard(read: Any) -> None:
    found = read.layer_problems("conv: {out_channels: 8, padding: -1, bias: 3}")
    assert found == [
        "net.yaml:3:38: conv.padding: expected a whole number >= 0, got -1",
        "net.yaml:3:48: conv.bias: expected true or false, got 3",
    ]


def test_repeat_is_bounded(read: Any) -> None:
    (found,) = read.layer_problems("repeat: {times: 1000, layers: [{repeat: {times: 1000, layers: [relu]}}]}")
    assert "1,000,000 layers once `repeat` is unrolled" in found


def test_broken_plugins_are_mentioned(read: Any) -> None:

    from normcore.registry import Plugin

    read.registry.plugins.append(Plugin("broken", "broken", error="ImportError: no such module"))
    try:
        (found,) = read.layer_problems("sparkle")
    finally:
        read.registry.plugins.pop()
    assert "set aside: plugin broken; see `normcore plugins list`" in found
