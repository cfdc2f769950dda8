"""Interleaved timing: A B, B A, A B ... in one process, so that drifts of the machine hit all alike.

A round in which other processes used the cores is dropped. Times are medians over rounds; ratios are medians of the
ratios within rounds, with an interval by order statistics (no assumption about the distribution).
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

QUIET_SHARE = 0.08  # of one core: what others may use in a round that counts
LEAST_SECONDS = 0.004  # a candidate's calls are repeated to last at least this long in a round
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds per call by candidate, a value per round; dropped: rounds that others disturbed."""

    rounds: Mapping[str, tuple[float, ...]]
    dropped: int

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def spread(self, name: str) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        values = sorted(self.rounds[name])
        quarter = len(values) // 4
        return (values[-1 - quarter] - values[quarter]) / 2 / self.median(name)

    def ratio(self, name: str, over: str) -> tuple[float, float, float]:
        """(lower, median, upper) of time(name) / time(over): how many times faster `over` is; 95 % interval."""
        values = sorted(a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True))
        n = len(values)
        reach = 0.98 * math.sqrt(n)  # 1.96 standard deviations of a median's rank, sqrt(n) / 2 each
        low = max(0, math.floor((n - 1) / 2 - reach))
        high = min(n - 1, math.ceil((n - 1) / 2 + reach))
        return values[low], statistics.median(values), values[high]


def interleave(
    candidates: Mapping[str, Callable[[], object]], rounds: int = 15, seconds: float = 3.0
) -> Timing:
    """Time every candidate in interleaved rounds, until `rounds` quiet ones or about twice `seconds` have passed.

    Each is called three times before it counts, so compile or warm up before.
    """
    repeats = {}
    for name, call in candidates.items():
        best = math.inf
        for _ in range(3):
            started = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - started)
        repeats[name] = max(1, min(2000, int(LEAST_SECONDS / max(best, 1e-7))))
    names = list(candidates)
    quiet: dict[str, list[float]] = {name: [] for name in names}
    noisy: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    number = 0
    while True:
        busy, own, wall = _busy(), _own(), time.perf_counter()
        measured = {
            name: _time(candidates[name], repeats[name])
            for name in (names if number % 2 == 0 else names[::-1])
        }
        others = (_busy() - busy) - (_own() - own)
        kept = quiet if others <= QUIET_SHARE * (time.perf_counter() - wall) + 0.02 else noisy
        for name, value in measured.items():
            kept[name].append(value)
        number += 1
        elapsed = time.perf_counter() - started
        enough = len(quiet[names[0]])
        if enough >= rounds or (elapsed > seconds and enough >= LEAST_ROUNDS) or elapsed > 2 * seconds:
            break
    if len(quiet[names[0]]) < LEAST_ROUNDS:  # a busy machine: everything counts, and the spread tells
        quiet = {name: quiet[name] + noisy[name] for name in names}
        return Timing({name: tuple(v) for name, v in quiet.items()}, 0)
    return Timing({name: tuple(v) for name, v in quiet.items()}, len(noisy[names[0]]))


def _time(call: Callable[[], object], repeats: int) -> float:
    call()  # the candidate before has left other data in the caches
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _busy() -> float:
    """Core seconds used by everybody since the machine started; 0 where the system does not tell."""
    try:
        with open("/proc/stat") as lines:
            fields = [int(f) for f in lines.readline().split()[1:]]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, interrupt, soft = fields[:7]
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = os.times()
    return used.user + used.system
