"""The `data:` section: names and parameters of components, and a loader from it."""

import numpy as np
import pytest

from normcore.data.augment import AUGMENTATIONS
from normcore.data.geometry import RandomCrop
from normcore.data.normalize import NORMALIZERS, Zca
from normcore.data.settings import DataSettings, component_of, open_loader
from normcore.data.source import DataSource
from normcore.data.sources import SOURCES
from normcore.errors import DataError, ParameterError


def test_forms_of_a_component():
    """A bare name, a mapping, a bare value for the first parameter; lists become tuples."""
    assert component_of("normalize", NORMALIZERS, "zca") == Zca()
    assert component_of("normalize", NORMALIZERS, {"zca": None}) == Zca()
    assert component_of("augment", AUGMENTATIONS, {"random_crop": 4}) == RandomCrop(padding=4)
    assert component_of("augment", AUGMENTATIONS, {"random_crop": {"size": [4, 5]}}) == RandomCrop(
        size=(4, 5)
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"augment": ("random_corp",)}, "did you mean 'random_crop'"),
        ({"augment": ({"random_crop": {"paddign": 2}},)}, "did you mean 'padding'"),
        ({"augment": ({"random_crop": {"padding": -2}},)}, "padding: expected a number of pixels, 0 or more"),
        ({"augment": ({"random_crop": 1, "rotation": 2},)}, "expected a name or"),
        ({"augment": (3,)}, "expected a name or"),
        ({"augment": ("center_crop",)}, "size: expected a value"),
        ({"normalize": "standardise"}, "did you mean 'standardize'"),
        ({"normalize": {"standardize": 3}}, "standardize without parameters"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"workers": -1}, "workers"),
        ({"validation": 1.0}, "validation"),
        ({"validation": 0.5, "test": 0.5}, "leave something to train on"),
    ],
)
def test_bad_settings(bad, message):
    """Each fault is one ParameterError with the nearest name."""
    with pytest.raises(ParameterError, match=message):
        DataSettings("mnist_sample", **bad)


def test_open_loader(tmp_path):
    """From settings to batches, and again with the arrays that the first run stored."""
    crop = {"random_crop": {"padding": 2}}
    settings = DataSettings("mnist_sample", normalize="standardize", augment=(crop,), validation=0.1)
    source = SOURCES["mnist_sample"]()
    loader = open_loader(settings, source, tmp_path, seed=3)
    assert (loader.shape, loader.steps, loader.size("validation")) == ((1, 28, 28), 85, 600)
    x, targets = next(loader.epoch(0))
    assert (x.shape, x.dtype, targets.shape) == ((64, 1, 28, 28), np.float32, (64,))
    again = open_loader(settings, source, tmp_path, seed=3, arrays=loader.transforms.arrays)
    np.testing.assert_array_equal(x.copy(), next(again.epoch(0))[0])


def test_a_source_without_test_part(tmp_path):
    """data.test sets a share aside; without it, the message says so."""
    np.savez(tmp_path / "a.npz", x_train=np.zeros((20, 4, 4), np.uint8), y_train=np.arange(20) % 2)
    source = SOURCES["npz"](path="a.npz")
    with pytest.raises(DataError, match=r"has no test part; add one, or set data.test"):
        open_loader(DataSettings("npz"), source, tmp_path)
    loader = open_loader(DataSettings("npz", test=0.2), source, tmp_path)
    assert (loader.size("train"), loader.size("test")) == (16, 4)


@pytest.mark.parametrize("known", [SOURCES, AUGMENTATIONS, NORMALIZERS], ids=["source", "augment", "normal"])
def test_every_component_is_described(known):
    """Each has its registered name, words for the user, and only parameters that YAML can say."""
    for name, component in known.items():
        assert component.name == name
        assert component.__doc__
        assert all(p.annotation is not None for p in component.parameters())


def test_sources_are_data_sources():
    """The contract's names, all of one kind."""
    assert {"mnist_sample", "npz", "npy", "idx", "images", "cifar10", "cifar100", "csv"} == set(SOURCES)
    assert all(issubclass(source, DataSource) and source.kind == "data source" for source in SOURCES.values())
