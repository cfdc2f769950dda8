"""YAML text to values with places: the core schema of YAML 1.2, anchors, every fault with its position."""

import math
from typing import Any

import pytest

from normcore.config.yaml_file import plain, read_text
from normcore.errors import Problem


def value(text: str) -> Any:
    problems: list[Problem] = []
    node = read_text(text, "f.yaml", problems)
    assert problems == []
    assert node is not None
    return plain(node)


def faults(text: str) -> list[str]:
    problems: list[Problem] = []
    read_text(text, "f.yaml", problems)
    return list(map(str, problems))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5e-4", 5e-4),  # YAML 1.1 reads it as text
        ("5E4", 5e4),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),  # 8 in YAML 1.1
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),  # 1000 in YAML 1.1
        ("on", "on"),  # true in YAML 1.1
        ("yes", "yes"),
        ("NO", "NO"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("2020-01-01", "2020-01-01"),
        ("'3'", "3"),
        ('"true"', "true"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
        ("e5", "e5"),
        ("=", "="),
    ],
)
def test_scalars_follow_the_core_schema(text: str, expected: Any) -> None:
    found = value(f"a: {text}")["a"]
    assert found == expected
    assert type(found) is type(expected)


def test_not_a_number() -> None:
    assert math.isnan(value("a: .nan")["a"])


def test_anchored_values_keep_their_type() -> None:
    found = value("a: &yes true\nb: *yes\nc: &n 5e-4\nd: [*n, *yes]")
    assert found["b"] is True  # ruamel's own constructor makes it 1
    assert found["d"] == [5e-4, True]


def test_merge_keys_give_way_to_written_ones() -> None:
    assert value("base: &base {a: 1, b: 2}\nnew: {<<: *base, b: 3}")["new"] == {"b": 3, "a": 1}


def test_places_are_one_based() -> None:
    problems: list[Problem] = []
    root = read_text("a: 1\nb:\n  - x\n  -  {c: 2}\n", "f.yaml", problems)
    inner = root.items["b"].items[1]  # type: ignore[union-attr]
    assert (inner.place.line, inner.place.column) == (4, 6)
    assert (inner.keys["c"].line, inner.keys["c"].column) == (4, 7)
    assert (inner.items["c"].place.line, inner.items["c"].place.column) == (4, 10)


def test_every_duplicate_key_is_reported() -> None:
    assert faults("a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n") == [
        "f.yaml:3:1: duplicate key 'a'; it stands in line 1 already; keep one of them",
        "f.yaml:4:11: duplicate key 'd'; it stands in line 4 already; keep one of them",
    ]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: [1, 2\nb: 3", "2:2", "not closed"),
        ("a: b: c", "1:5", "needs quotes"),
        ("a:\n\t- 1", "2:1", "use spaces"),
        ("a: @x", "1:4", "needs quotes"),
        ('a: "x', "1:6", "a quote is not closed"),
        ("- a\nb: 1", "2:1", "indented differently"),
        ("a: *nothing", "1:4", "repeats nothing"),
        ("a: &x [*x]", "1:8", "inside the value that it repeats"),
        ("a: !thing 3", "1:4", "has no meaning here"),
        ("a: !!int x", "1:4", "is no !!int"),
        ("a: 1\n---\nb: 2", "2:1", "second document"),
        ("? [1]\n: 2", "1:3", "a key must be text"),
        ("null: 2", "1:1", "a key must be text"),
        ("a: \x07", "1:4", "control character"),
        ("<<: 3", "1:1", "takes over the keys of a mapping"),
    ],
)
def test_faults_have_a_place_and_say_what_to_do(text: str, place: str, says: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{place}: ")
    assert says in found[0]


def test_nesting_and_aliases_cannot_exhaust_the_machine() -> None:
    assert "levels deep" in faults("[" * 5000 + "]" * 5000)[0]
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert "once aliases are followed" in faults(bomb)[0]
