"""Ctrl-C during training: the step under way is finished, a checkpoint written, and the user told how to go on."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


class Interrupted(Exception):
    """Ctrl-C: the step was finished and a checkpoint written. path: the checkpoint, None without a run folder."""

    def __init__(self, path: Any = None):
        self.path = path
        super().__init__("interrupted")


@contextlib.contextmanager
def interruptible(ask: Callable[[], bool]) -> Iterator[None]:
    """Inside, the first Ctrl-C calls ask(); a second one, which ask() answers with False, ends the program."""

    def stop(number: int, frame: Any) -> None:
        if not ask():
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not the main thread: nobody sends it signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
