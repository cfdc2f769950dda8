"""What dump writes reads back as the same values: any text, any number, any nesting."""

import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from normcore.config.dump import dump
from normcore.config.variables import substitute
from normcore.config.yaml_file import Mapping, plain, read_text
from normcore.errors import Problem

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers_in_text = st.sampled_from(
    ["1e5", "on", "null", "~", ".inf", "0x1f", "...", "---", "${a}", "$${a}", "a: b", "- a", "#"]
)
values = st.recursive(
    scalars | texts | numbers_in_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | numbers_in_text, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, min_size=1, max_size=4))
@example({"${": None, "a": {"${b}": "${c}"}})
def test_round_trip(value: dict[str, Any]) -> None:
    if "vars" in value:
        return
    problems: list[Problem] = []
    root = read_text(dump(value), "f", problems)
    assert isinstance(root, Mapping)
    assert plain(substitute(root, problems)) == value
    assert problems == []


def test_style() -> None:
    text = dump(
        {"name": "net", "network": ["relu", {"conv": {"out_channels": 8}}], "rate": 5e-4, "on": "1e3"}
    )
    assert text == 'name: net\nnetwork:\n  - relu\n  - conv: {out_channels: 8}\nrate: 0.0005\non: "1e3"\n'
    assert dump({"a": math.inf}) == "a: .inf\n"
