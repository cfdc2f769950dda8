"""The JSON Schema accepts what the configuration accepts and refuses what it refuses, by types and names.

Checked with the few keywords that the schema uses, so that no validator has to be installed.
"""

import json
import re
from typing import Any

import pytest

from normcore.config.json_schema import schema
from normcore.config.yaml_file import plain, read_text

TYPES = {
    "string": str,
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
    "integer": int,
    "number": (int, float),
}
KEYWORDS = {
    "$ref", "anyOf", "type", "const", "enum", "pattern", "minimum", "properties", "patternProperties",
    "required", "additionalProperties", "minProperties", "maxProperties", "items", "prefixItems",
    "minItems", "maxItems", "description", "default", "title", "$schema", "$defs",
}  # fmt: skip


def valid(value: Any, rule: Any, root: dict[str, Any]) -> bool:
    if isinstance(rule, bool):
        return rule
    assert set(rule) <= KEYWORDS, f"the check below does not know {set(rule) - KEYWORDS}"
    if "$ref" in rule and not valid(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root):
        return False
    if "anyOf" in rule and not any(valid(value, form, root) for form in rule["anyOf"]):
        return False
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    names = rule.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_is(value, name) for name in names):
        return False
    if isinstance(value, str) and "pattern" in rule and not re.search(rule["pattern"], value):
        return False
    if isinstance(value, (int, float)) and value < rule.get("minimum", value):
        return False
    if isinstance(value, list):
        return _valid_list(value, rule, root)
    return _valid_mapping(value, rule, root) if isinstance(value, dict) else True


def _is(value: Any, name: str) -> bool:
    # true is no number
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))  # type: ignore[arg-type]


def _valid_list(value: list[Any], rule: dict[str, Any], root: dict[str, Any]) -> bool:
    if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
        return False
    rules = rule.get("prefixItems", [])
    rules = rules + [rule.get("items", True)] * (len(value) - len(rules))
    return all(valid(item, r, root) for item, r in zip(value, rules, strict=False))


def _valid_mapping(value: dict[str, Any], rule: dict[str, Any], root: dict[str, Any]) -> bool:
    if any(key not in value for key in rule.get("required", [])):
        return False
    if not rule.get("minProperties", 0) <= len(value) <= rule.get("maxProperties", len(value)):
        return False
    for key, item in value.items():
        inner = rule.get("properties", {}).get(key)
        patterns = [r for p, r in rule.get("patternProperties", {}).items() if re.search(p, key)]
        inner = inner if inner is not None else (patterns or [rule.get("additionalProperties", True)])[0]
        if not valid(item, inner, root):
            return False
    return True


@pytest.fixture(scope="module")
def made(registry: Any) -> dict[str, Any]:
    return schema(registry)


def accepts(made: dict[str, Any], text: str) -> bool:
    node = read_text(text, "f", [])
    assert node is not None
    return valid(plain(node), made, made)


GOOD = """\
name: x
vars: {act: relu}
data: {source: npz, path: a.npz, normalize: standardize, augment: [cutout, {random_crop: {padding: 2}}]}
network:
  - conv: {out_channels: 8, padding: [[0, 1], 2], weight_init: {normal: {std: 0.01}}, bias_init: zeros}
    name: stem
  - conv: 8
  - batch_norm
  - bn: {momentum: null}
  - relu:
  - ${act}
  - resize: [3, 4]
  - residual: {body: [relu], shortcut: []}
  - branches: {merge: add, paths: [[relu], []]}
  - repeat: {times: 2, layers: [{repeat: {times: 2, layers: [relu]}}]}
loss: {cross_entropy: {label_smoothing: 0.1}}
optimizer: {sgd: {lr: 0.1, no_decay: [bias]}}
schedule: {cosine: {warmup_epochs: 1}}
train: {epochs: 3, clip_grad_norm: null}
start_from: {run: a, lr_multipliers: {"dense*": 10}}
"""


def test_accepts_what_the_configuration_accepts(made: dict[str, Any], read: Any) -> None:
    assert accepts(made, GOOD)
    read(GOOD)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("conv: 8", "conv: x"),
        ("  - conv: 8", "  - conv"),
        ("batch_norm", "batchnorm"),
        ("times: 2", "time: 2"),
        ("merge: add", "merge: ad"),
        ("source: npz", "source: nzp"),
        ("path: a.npz, ", ""),
        ("padding: 2}", "paddin: 2}"),
        ("epochs: 3", "epochs: three"),
        ("loss:", "los:"),
        ("cosine:", "cosin:"),
        ("lr: 0.1", "lr: fast"),
        ("resize: [3, 4]", "resize: [3, 4, 5]"),
        ("momentum: null", "momentum: true"),
        ("run: a, ", ""),
    ],
)
def test_refuses_what_the_configuration_refuses(made: dict[str, Any], read: Any, good: str, bad: str) -> None:
    text = GOOD.replace(good, bad, 1)
    assert text != GOOD
    assert not accepts(made, text)
    assert read.problems(text)


def test_an_editor_finds_docs_and_defaults(made: dict[str, Any]) -> None:
    json.dumps(made)
    norm = made["$defs"]["op.batch_norm"]
    assert norm["description"] == "Statistics."
    assert norm["anyOf"][0]["properties"]["eps"]["default"] == 1e-5
    assert {"batch_norm", "bn", "residual", "name", "inputs"} <= set(
        made["$defs"]["layer"]["anyOf"][-2]["properties"]
    )
