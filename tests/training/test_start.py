"""Weights of another run: what does not fit is listed, all of it."""

import numpy as np

from normcore.training.start import mismatches


def test_every_array_that_does_not_fit_is_listed():
    own = {"conv.weight": np.zeros((4, 3)), "head.weight": np.zeros((3, 4)), "head.bias": np.zeros(3)}
    theirs = {"conv.weight": np.ones((4, 3)), "head.weight": np.zeros((2, 4)), "old.bias": np.zeros(2)}
    assert mismatches(theirs, own) == [
        "head.weight: (3, 4) here, (2, 4) in the file",
        "head.bias: (3,) here, not in the file",
        "old.bias: (2,) in the file, not here",
    ]
    assert mismatches(own, own) == []
