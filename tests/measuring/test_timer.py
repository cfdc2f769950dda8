"""The timer's statistics; no times."""

import itertools
import random

import pytest

from normcore.measuring.timer import RUN_TO_RUN, Timing, interleave, joined, median_interval


def test_the_interval_holds_the_median_and_shrinks_with_rounds():
    values = [float(k) for k in range(101)]
    random.Random(0).shuffle(values)
    low, middle, high = median_interval(values)
    assert middle == 50 and low < 50 < high
    few = median_interval(values[:11])
    assert few[2] - few[0] > high - low
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    rng = random.Random(1)
    hits = 0
    for _ in range(400):
        low, _, high = median_interval([rng.expovariate(1.0) for _ in range(25)])
        hits += low <= 0.6931 <= high
    assert 0.93 <= hits / 400 <= 1.0


def test_a_ratio_is_taken_within_rounds():
    """A machine that slows down between rounds changes both times and no ratio."""
    ours = tuple(float(k) for k in (1, 2, 4, 8, 16))
    timing = Timing({"ours": ours, "theirs": tuple(3 * v for v in ours)}, 0)
    assert timing.ratio("theirs", "ours") == (3.0 / RUN_TO_RUN, 3.0, 3.0 * RUN_TO_RUN)
    assert timing.interval("ours") == (1.0 / RUN_TO_RUN, 16.0 * RUN_TO_RUN)


def test_rounds_are_interleaved_and_a_clock_of_its_own_is_asked():
    order = []
    ticks = itertools.count(1)

    def clock(call, repeats):
        for _ in range(repeats):
            call()
        return float(next(ticks) % 2 + 1)

    timing = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        rounds=6,
        seconds=5.0,
        clocks={"a": clock, "b": clock},
    )
    runs = [name for name, _ in itertools.groupby(order)]
    assert runs[-4:] in (["a", "b", "a", "b"], ["b", "a", "b", "a"], ["a", "b", "a", "b"][::-1])
    assert set(timing.rounds["a"]) <= {1.0, 2.0}
    assert len(timing.rounds["a"]) == len(timing.rounds["b"]) >= 5


def test_spread_is_half_the_middle_half():
    timing = Timing({"x": (8.0, 9.0, 10.0, 11.0, 12.0)}, 0)
    assert timing.spread("x") == pytest.approx(0.1)


def test_an_interval_reaches_over_the_places_that_it_was_measured_at():
    parts = [Timing({"ours": (v, v, v), "theirs": (2.0, 2.0, 2.0)}, 1) for v in (1.0, 4.0, 2.0)]
    timing = joined(parts)
    assert timing.dropped == 3 and len(timing.rounds["ours"]) == 9
    assert timing.interval("ours") == (1.0 / RUN_TO_RUN, 4.0 * RUN_TO_RUN) and timing.median("ours") == 2.0
    assert timing.ratio("theirs", "ours") == (0.5 / RUN_TO_RUN, 1.0, 2.0 * RUN_TO_RUN)
    assert joined(parts[:1]) is parts[0]
