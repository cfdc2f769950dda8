"""Interleaved timing: A B, B A, A B ... in one process, so that drifts of the machine hit all alike.

A round in which other processes used the cores is dropped. Times are medians over rounds; ratios are medians of the
ratios within rounds, with an interval by order statistics (no assumption about the distribution), widened by what
another run differs by, so that it holds what that would find.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

WARM_UP = 12  # calls at most, until two in a row take the same time
STABLE = 0.1  # by which two calls in a row may differ once warm
QUIET_SHARE = 0.08  # of one core: what others may use in a round that counts
LEAST_SECONDS = 0.004  # a candidate's calls are repeated to last at least this long in a round
LEAST_ROUNDS = 5
RUN_TO_RUN = 1.015  # memory lies elsewhere in each process, which alone moves a median by so much either way


@dataclass(frozen=True)
class Timing:
    """Seconds per call by candidate, a value per round; dropped: rounds that others disturbed.

    parts: what it was joined from, each measured with arrays at other places in memory. Medians then are of all rounds,
    and an interval reaches over the parts' medians: where memory lies can matter more than all else.
    """

    rounds: Mapping[str, tuple[float, ...]]
    dropped: int
    parts: "tuple[Timing, ...]" = ()

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def spread(self, name: str) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        values = sorted(self.rounds[name])
        quarter = len(values) // 4
        return (values[-1 - quarter] - values[quarter]) / 2 / self.median(name)

    def interval(self, name: str) -> tuple[float, float]:
        """(lower, upper) of the median's 95 % interval, for this run and others."""
        low, _, high = median_interval(self.rounds[name])
        medians = [part.median(name) for part in self.parts]
        return min([low, *medians]) / RUN_TO_RUN, max([high, *medians]) * RUN_TO_RUN

    def ratio(self, name: str, over: str) -> tuple[float, float, float]:
        """(lower, median, upper) of time(name) / time(over): how many times faster `over` is; 95 % interval, for this run
        and others."""
        low, middle, high = median_interval(
            a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True)
        )
        ratios = [part.ratio(name, over)[1] for part in self.parts]
        return min([low, *ratios]) / RUN_TO_RUN, middle, max([high, *ratios]) * RUN_TO_RUN


def joined(parts: Sequence[Timing]) -> Timing:
    """One Timing of several of the same candidates."""
    if len(parts) == 1:
        return parts[0]
    rounds = {name: tuple(v for part in parts for v in part.rounds[name]) for name in parts[0].rounds}
    return Timing(rounds, sum(part.dropped for part in parts), tuple(parts))


def median_interval(values: Iterable[float]) -> tuple[float, float, float]:
    """(lower, median, upper): the median with its 95 % interval by order statistics."""
    ordered = sorted(values)
    n = len(ordered)
    reach = 0.98 * math.sqrt(n)  # 1.96 standard deviations of a median's rank, sqrt(n) / 2 each
    low = max(0, math.floor((n - 1) / 2 - reach))
    high = min(n - 1, math.ceil((n - 1) / 2 + reach))
    return ordered[low], statistics.median(ordered), ordered[high]


# Seconds per call of a candidate that is called so many times in a row.
Clock = Callable[[Callable[[], object], int], float]


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    seconds: float = 3.0,
    clocks: Mapping[str, Clock] | None = None,
    repeats: Mapping[str, int] | None = None,
) -> Timing:
    """Time every candidate in interleaved rounds, until `rounds` quiet ones or about twice `seconds` have passed.

    Each is called until it takes the same time twice in a row before it counts; compile before. clocks: for
    candidates that this process's clock cannot time, such as work on a GPU. repeats: how often each is called in a
    round, of candidates that were warm before and only have new arrays (calls_a_round); each is then called once first.
    """
    clocks = clocks or {}
    if repeats is None:
        repeats = calls_a_round(candidates, clocks)
    else:
        for call in candidates.values():
            call()
    names = list(candidates)

    def measure(number: int) -> dict[str, float]:
        order = names if number % 2 == 0 else names[::-1]
        return {name: _time(candidates[name], repeats[name], clocks.get(name, _wall)) for name in order}

    return gather(measure, rounds, seconds)


def calls_a_round(
    candidates: Mapping[str, Callable[[], object]], clocks: Mapping[str, Clock] | None = None
) -> dict[str, int]:
    """How often to call each candidate for a round to last LEAST_SECONDS. Warms them up."""
    clocks = clocks or {}
    best = {name: _warm_up(call, clocks.get(name, _wall)) for name, call in candidates.items()}
    return {name: max(1, min(2000, int(LEAST_SECONDS / max(b, 1e-7)))) for name, b in best.items()}


def gather(measure: Callable[[int], Mapping[str, float]], rounds: int = 15, seconds: float = 3.0) -> Timing:
    """Rounds of measure(number) -> seconds by name, until `rounds` quiet ones or about twice `seconds` have passed."""
    quiet: dict[str, list[float]] = {}
    noisy: dict[str, list[float]] = {}
    good = number = 0
    started = time.perf_counter()
    while True:
        busy, own, wall = _busy(), _own(), time.perf_counter()
        measured = measure(number)
        others = (_busy() - busy) - (_own() - own)
        is_quiet = others <= QUIET_SHARE * (time.perf_counter() - wall) + 0.02
        for name, value in measured.items():
            (quiet if is_quiet else noisy).setdefault(name, []).append(value)
        good += is_quiet
        number += 1
        elapsed = time.perf_counter() - started
        if good >= rounds or (elapsed > seconds and good >= LEAST_ROUNDS) or elapsed > 2 * seconds:
            break
    if good < LEAST_ROUNDS:  # a busy machine: everything counts, and the spread tells
        every = {name: tuple(quiet.get(name, []) + noisy.get(name, [])) for name in measured}
        return Timing(every, 0)
    return Timing({name: tuple(values) for name, values in quiet.items()}, number - good)


def _warm_up(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of the fastest call, once warm."""
    best = before = clock(call, 1)
    for number in range(WARM_UP - 1):
        now = clock(call, 1)
        best = min(best, now)
        if number and abs(now - before) <= STABLE * before:
            break
        before = now
    return best


def _time(call: Callable[[], object], repeats: int, clock: Clock) -> float:
    call()  # the candidate before has left other data in the caches
    return clock(call, repeats)


def _wall(call: Callable[[], object], repeats: int) -> float:
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
