"""Compiling with a second process: Numba compiles one kernel at a time, so two processes halve a cold start.

The helper runs the same preparation in the opposite order and shares its results through the kernel cache on disk;
whoever comes to a kernel second loads it. It takes nothing from the parent but the configuration, and a helper that
fails costs nothing but the time saved.
"""

import json
import subprocess
import sys
from typing import Any

from normcore.devices.cpu import cores
from normcore.kernels import store


class Helper:
    """A process that prepares the same training from the other end. `start` when compiling begins, then `stop`."""

    def __init__(self, config: Any, dtype: str, plugin_files: tuple[str, ...] = ()):
        self._wanted = {
            "config": dict(config.resolved),
            "base": str(config.base),
            "dtype": dtype,
            "plugins": list(plugin_files),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, once, where there is a second core and a cache on disk to meet in."""
        if self._process is not None or cores() < 2 or store.folder() is None or not self._wanted["config"]:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "normcore.training.compile_ahead"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._wanted).encode())
        self._process.stdin.close()

    def stop(self) -> None:
        """End it; what it has compiled stays in the cache."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def main() -> None:
    """Prepare what standard input describes, last call first."""
    wanted = json.load(sys.stdin)
    from normcore.config.config import from_mapping
    from normcore.network import Network
    from normcore.registry import default
    from normcore.training.loop import Trainer

    for file in wanted["plugins"]:
        default().load_file(file)
    config = from_mapping(wanted["config"], base=wanted["base"], allow_plugins=True)
    trainer = Trainer(Network(config, dtype=wanted["dtype"]))
    trainer.prepare(backwards=True)


if __name__ == "__main__":
    main()
