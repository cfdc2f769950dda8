"""The command line in this process: `normcore("train", file)` gives its status and what it printed."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from normcore_cli.main import run

from normcore.registry import default

# Few kernels, no convolution: pooled pixels, normalized, are the scores of 16 classes.
NET = """\
name: tiny
data: {source: mnist_sample, batch_size: 500}
network: [{max_pool: {kernel_size: 7, stride: 7}}, flatten, batch_norm]
train: {epochs: 1}
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No plugin file or way of showing warnings outlives a test."""
    before = warnings.showwarning
    yield
    warnings.showwarning = before
    default.cache_clear()


@pytest.fixture
def normcore(capsys: Any, tmp_path: Path, monkeypatch: Any) -> Callable[..., Outcome]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(NET, encoding="utf-8")

    def call(*arguments: object) -> Outcome:
        status = run(list(map(str, arguments)))
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call
