"""Hints at the end of errors: the nearest name, a short list, or the command that has the long one."""

import pytest

import normcore
from normcore.config.config import from_mapping
from normcore.errors import ConfigError, nearest
from normcore.registry import Plugin, default


def test_the_nearest_name_or_all_of_a_few_or_where_many_are_listed():
    assert nearest("rely", ["relu", "tanh"]) == "; did you mean 'relu'?"
    assert nearest("xxxx", ["b", "a"]) == "; known: a, b"
    assert nearest("xxxx", []) == ""
    many = [f"name{i}" for i in range(16)]
    assert nearest("zzzz", many[:15]).startswith("; known: name0, name1")
    assert nearest("zzzz", many, "normcore ops") == "; 16 are known: `normcore ops` lists them"
    assert len(nearest("zzzz", many)) < 180


def test_an_unknown_op_points_to_the_list():
    with pytest.raises(normcore.PluginError, match=r"are known: `normcore ops` lists them"):
        default().get("op", "qqqqqqqq")


def test_plugins_set_aside_are_named_once_a_file():
    default.cache_clear()
    try:
        default().plugins.append(Plugin("shaky", "shaky.py", error="it broke"))
        with pytest.raises(ConfigError) as raised:
            from_mapping({"name": "n", "input": [4], "network": ["qqqqqqqq", "jjjjjjjj", {"dense": 2}]})
    finally:
        default.cache_clear()
    assert len(raised.value.problems) == 2
    assert str(raised.value).count("set aside: plugin shaky") == 1
