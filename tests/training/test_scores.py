"""Counting a classifier's answers: against counting one by one."""

import numpy as np
import pytest

from normcore.training.scores import Scores, probabilities


def test_counts_are_those_of_counting_one_by_one():
    rng = np.random.default_rng(0)
    outputs, targets = rng.integers(0, 6, (300, 8)).astype(np.float32), rng.integers(0, 8, 300)  # many ties
    scores = Scores(8)
    for start in range(0, 300, 128):  # uneven batches
        scores.add(outputs[start : start + 128], targets[start : start + 128])
    expected, few = np.zeros((8, 8), int), 0
    for row, target in zip(outputs, targets, strict=True):
        order = sorted(range(8), key=lambda k: (-row[k], k))
        expected[target, order[0]] += 1
        few += target in order[:5]
    np.testing.assert_array_equal(scores.confusion, expected)
    assert scores.accuracy == np.trace(expected) / 300
    assert scores.top5 == few / 300
    for k, row in enumerate(scores.per_class([f"c{i}" for i in range(8)])):
        assert (row["name"], row["samples"], row["correct"]) == (f"c{k}", expected[k].sum(), expected[k, k])
        others = [n if j != k else -1 for j, n in enumerate(expected[k])]
        assert row["mostly_taken_for"] == int(np.argmax(others))


def test_nan_is_wrong_and_ignored_targets_do_not_count():
    scores = Scores(6, ignored=-100)
    outputs = np.zeros((3, 6))
    outputs[0] = np.nan
    scores.add(outputs, np.array([2, -100, 0]))
    assert (scores.samples, scores.accuracy, scores.top5) == (2, 0.5, 0.5)
    scores.add(outputs[1:2], np.array([-100]))
    assert scores.samples == 2


def test_nothing_to_say():
    scores = Scores(3)
    assert scores.accuracy is None and scores.top5 is None
    scores.add(np.eye(3), np.arange(3))
    assert scores.accuracy == 1.0
    assert scores.top5 is None  # five of three classes are always right


def test_probabilities_do_not_overflow():
    found = probabilities(np.array([[1e4, 1e4 - 1.0], [0.0, 0.0]], np.float32))
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert found.sum(1).tolist() == [1.0, 1.0]
