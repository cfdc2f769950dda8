"""The sizes of this processor's data caches."""

import pathlib

ROOT = "/sys/devices/system/cpu/cpu0/cache"
SECOND_LEVEL = 1 << 20  # where the system does not tell
LAST_LEVEL = 32 << 20


def caches() -> dict[str, int]:
    """Bytes of each level's data cache, such as {"L1": 49152, "L2": 1048576}; empty where the system does not tell."""
    found = {}
    root = pathlib.Path(ROOT)
    for index in sorted(root.glob("index*")) if root.is_dir() else ():
        kind, level, size = (_text(index / name) for name in ("type", "level", "size"))
        if kind in ("Data", "Unified") and size[-1:] in ("K", "M"):
            found[f"L{level}"] = int(size[:-1]) << (10 if size[-1] == "K" else 20)
    return found


def second_level_bytes() -> int:
    """Bytes of a core's second-level cache."""
    return caches().get("L2", SECOND_LEVEL)


def last_level_bytes() -> int:
    """Bytes of the largest cache."""
    return max(caches().values(), default=LAST_LEVEL)


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
