"""Sequences with lengths: read, measured and filled up to their ends, and one clear error for each bad length."""

import numpy as np
import pytest

from normcore.data.colour import Mixup
from normcore.data.loader import Loader
from normcore.data.normalize import Minmax, Standardize, Zca
from normcore.data.samples import taken
from normcore.data.sources.arrays import MnistSample, Npy, Npz
from normcore.data.transforms import Transforms
from normcore.errors import DataError

STEPS, FEATURES = 6, 3


def arrays(count: int = 20, test: int = 5) -> dict[str, np.ndarray]:
    """Sequences with NaN behind their ends."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for part, n in (("train", count), ("test", test)):
        x = 3.0 + rng.standard_normal((n, STEPS, FEATURES)) * (1.0, 10.0, 100.0)
        lengths = rng.integers(1, STEPS + 1, n)
        x[np.arange(STEPS) >= lengths[:, None]] = np.nan
        found |= {f"x_{part}": x, f"y_{part}": np.arange(n) % 2, f"lengths_{part}": lengths}
    return found


def load(tmp_path, given, **keys):
    np.savez(tmp_path / "s.npz", **given)
    return Npz("s.npz", **keys).load(tmp_path)


def test_a_file_with_lengths_holds_sequences(tmp_path):
    given = arrays()
    data = load(tmp_path, given)
    assert data.shape == (STEPS, FEATURES) and data.sequences
    np.testing.assert_array_equal(data.lengths_train, given["lengths_train"])
    for name, array in given.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = Npy(".").load(tmp_path)
    np.testing.assert_array_equal(mapped.lengths_test, given["lengths_test"])
    without = {key: np.nan_to_num(a) for key, a in given.items() if "lengths" not in key}
    assert load(tmp_path, without, layout="sequences").lengths_train is None


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_end_where_sequences_end(tmp_path, workers):
    """Features are normalized by the steps that are there; zeros follow, whatever the file holds."""
    given = arrays()
    loader = Loader(load(tmp_path, given), 8, Transforms(Standardize()), validation=0.2, workers=workers)
    part = loader.parts["train"].indices
    real = np.concatenate([given["x_train"][i, : given["lengths_train"][i]] for i in part])
    for k, (x, _) in enumerate(loader.epoch(3)):
        for at, i in enumerate(loader.order(3)[8 * k : 8 * k + 8]):
            end = given["lengths_train"][i]
            assert x.lengths[at] == end and not x.x[at, end:].any()
            expected = (given["x_train"][i, :end] - real.mean(0)) / real.std(0)
            np.testing.assert_allclose(x.x[at, :end], expected, rtol=1e-5, atol=1e-6)
    assert sum(len(x) for x, _ in loader.evaluate("validation")) == 4


def test_sequences_without_lengths_are_normalized_by_feature(tmp_path):
    given = {key: np.nan_to_num(a) for key, a in arrays().items() if "lengths" not in key}
    loader = Loader(load(tmp_path, given, layout="sequences"), 20, Transforms(Minmax()), workers=0)
    x, _ = next(loader.epoch(0))
    np.testing.assert_allclose(x.min((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(x.max((0, 1)), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lengths_train", [0] * 20, r"sequence 0 \(counted from 0\) has length 0; expected 1 to 6 \(20 are outside\)"),
        ("lengths_test", [1, 2, 7, 1, 1], r"lengths_test: sequence 2 .* has length 7"),
        ("lengths_test", [1, 2], r"lengths_test is int64 of shape \(2,\); expected .* \(5,\)"),
        ("lengths_train", np.ones(20), "lengths_train is float64"),
        ("lengths_test", None, "there is no lengths_test"),
        ("x_train", np.ones((20, 6)), r"x_train has shape \(20, 6\); expected sequences"),
    ],
)  # fmt: skip
def test_bad_lengths_are_named(tmp_path, key, value, message):
    given = arrays()
    if value is None:
        del given[key]
    else:
        given[key] = np.array(value)
    with pytest.raises(DataError, match=message):
        load(tmp_path, given)


@pytest.mark.parametrize("transforms", [Transforms(Zca()), Transforms(None, [Mixup()])])
def test_what_mixes_places_is_refused(tmp_path, transforms):
    with pytest.raises(DataError, match="sequences of different lengths take neither mixup nor"):
        Loader(load(tmp_path, arrays()), 4, transforms)


def test_a_digit_is_as_long_as_it_is_wide(tmp_path):
    whole, data = MnistSample().load(tmp_path), MnistSample(columns=True).load(tmp_path)
    some = np.arange(50)
    for image, columns, length in zip(
        taken(whole.x_train, some), taken(data.x_train, some), data.lengths_train
    ):
        inked = np.flatnonzero(image[0].any(0))
        assert length == inked[-1] - inked[0] + 1
        np.testing.assert_allclose(columns[:length], image[0].T[inked[0] : inked[-1] + 1] / 255, rtol=1e-6)
        assert not columns[length:].any()
