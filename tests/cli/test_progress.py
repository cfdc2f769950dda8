"""What the user sees while a network trains, line by line, and in a terminal."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from normcore_cli import progress
from normcore_cli.table import count, duration, size, table

from normcore.training.observer import Progress

STEP = Progress(1, 3, 10, 94, 1234.5, 0.25, 0.9, 75.0)
METRICS = {
    "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.8, "test_loss": 0.4, "test_accuracy": 0.9,
    "images_per_second": 1000.0, "seconds": 6.5,
}  # fmt: skip


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def plain(monkeypatch: Any) -> tuple[progress.PlainDisplay, io.StringIO, Clock]:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    out = io.StringIO()
    return progress.PlainDisplay(out), out, clock


def test_compiling_is_shown_at_once_and_then_now_and_then(monkeypatch: Any) -> None:
    view, out, clock = plain(monkeypatch)
    for number in range(1, 6):
        view.preparing(number, 24, f"layer{number} forward")
        clock.now += 1.5
    view.prepared(1, 7.5)
    assert out.getvalue().splitlines() == [
        "compiling kernel 1 of 24 (layer1 forward)",
        "compiling kernel 3 of 24 (layer3 forward)",
        "compiling kernel 5 of 24 (layer5 forward)",
        "compiled 1 kernel in 7.5 s; the next run finds them in the cache",
    ]


def test_without_a_cache_none_is_promised(monkeypatch: Any) -> None:
    from normcore.kernels import store

    view, out, _ = plain(monkeypatch)
    monkeypatch.setattr(store, "folder", lambda: None)
    view.prepared(2, 7.5)
    assert out.getvalue() == "compiled 2 kernels in 7.5 s\n"


def test_only_kernels_that_compile_are_announced() -> None:
    import numba

    from normcore.training.warm_up import _before_compiling

    told: list[str] = []
    twice = numba.njit(lambda x: 2 * x)
    for number in (1, 1, 1.0):  # compiles, is there already, compiles for another type
        with _before_compiling(
            SimpleNamespace(device=SimpleNamespace(name="cpu")), lambda: told.append("now")
        ):  # type: ignore[arg-type]
            twice(number)
        told.append("done")
    assert told == ["now", "done", "done", "now", "done"]


def test_steps_and_epochs(monkeypatch: Any) -> None:
    view, out, clock = plain(monkeypatch)
    view.begin(SimpleNamespace(run=None))
    view.step(STEP)
    clock.now += 20
    view.step(STEP)
    view.epoch(METRICS, best=True)
    assert out.getvalue().splitlines() == [
        "epoch 1/3  step 10/94  1,234 images/s  loss 0.2500  accuracy 0.9000  1:15 left",
        "epoch 1/3  loss 0.5000  accuracy 0.8000  test loss 0.4000  test accuracy 0.9000  1,000 images/s  6.5 s  best",
    ]


def test_a_terminal_gets_one_bar_with_epochs_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    view = progress.LiveDisplay(out)
    view.preparing(7, 24, "conv1 forward")
    view.step(STEP)
    view.epoch(METRICS, best=False)
    view.note("[done]")
    view.end({})
    text = out.getvalue()
    assert "compiling kernel 7 of 24" in text
    assert "test accuracy 0.9000" in text
    assert "[done]" in text  # no markup


def test_display_is_plain_without_a_terminal() -> None:
    assert type(progress.display(io.StringIO())) is progress.PlainDisplay


def test_numbers_for_people() -> None:
    assert [count(v) for v in (12, 123456, 1.5e6, 2.34e9, 5e15)] == [
        "12",
        "123,456",
        "1.5 M",
        "2.34 G",
        "5,000 T",
    ]
    assert [size(v) for v in (12, 3400, 5.6e6, 7.8e9)] == ["12 B", "3.4 KB", "5.6 MB", "7.8 GB"]
    assert [duration(v) for v in (0.4, 59, 61, 3723, float("inf"))] == [
        "0 s",
        "59 s",
        "1:01",
        "1:02:03",
        "99:59:59",
    ]
    assert table(("a", "bb"), [("x", 1), ("yyy", 22)], right=(1,)) == "a    bb\nx     1\nyyy  22"
