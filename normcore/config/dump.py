"""Plain values -> YAML text that reads back as the same values, in the style people write networks.

Written here because a dumper must agree with the reader (yaml_file.resolve) on what needs quotes.
"""

import json
import math
import re
from typing import Any

from normcore.config.yaml_file import resolve

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./*+-]*(?: [A-Za-z0-9_./*+-]+)*")
# What a YAML text may not hold as it is, or would take for the end of a line.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_WIDTH = 110


def dump(values: Any) -> str:
    """Mappings and lists in blocks, what fits in a line in flow style."""
    return "\n".join(_block(values, 0)) + "\n"


def _block(value: Any, indent: int) -> list[str]:
    pad = " " * indent
    lines: list[str] = []
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            head = f"{pad}{_scalar(key)}:"
            if _opens(inner) and (
                (indent == 0 and _nested(inner)) or len(head) + 1 + len(flow(inner)) > _WIDTH
            ):
                lines += [head, *_block(inner, indent + 2)]
            else:
                lines.append(f"{head} {flow(inner)}")
        return lines
    if isinstance(value, list) and value:
        for item in value:
            if _opens(item) and (isinstance(item, dict) or indent + 2 + len(flow(item)) > _WIDTH):
                first, *rest = _block(item, indent + 2)
                lines += [f"{pad}- {first.lstrip()}", *rest]
            else:
                lines.append(f"{pad}- {flow(item)}")
        return lines
    return [pad + flow(value)]


def _opens(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _nested(value: Any) -> bool:
    """A top-level section is a block unless it is a short list of scalars or a mapping with one key."""
    inner = value.values() if isinstance(value, dict) else value
    return (isinstance(value, dict) and len(value) > 1) or (
        isinstance(value, list) and any(map(_opens, inner))
    )


def flow(value: Any) -> str:
    """The value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        return repr(value) if math.isfinite(value) else (".inf" if value > 0 else "-.inf")
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("${", "$${")  # literal, or it would be a variable when read back
    if _PLAIN.fullmatch(text) and resolve(text) == text and not text.startswith("..."):
        return text
    return _UNPRINTABLE.sub(lambda m: f"\\U{ord(m[0]):08x}", json.dumps(text, ensure_ascii=False))
