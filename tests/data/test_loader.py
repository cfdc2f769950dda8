"""The loader: the same bits whatever the workers, epochs that can be resumed, errors, endings, memory."""

import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest

from normcore.data.colour import Cutout, Mixup, PcaColour
from normcore.data.dataset import dataset, divide
from normcore.data.geometry import CenterCrop, HorizontalFlip, RandomCrop, RandomResizedCrop, Rotation
from normcore.data.loader import Loader
from normcore.data.normalize import Standardize, StandardizePixels, SubtractMean, Zca
from normcore.data.transforms import Transforms
from normcore.errors import DataError, ParameterError

RNG = np.random.default_rng(6)
LABELS = np.arange(103) % 5


def images(n: int = 103, shape=(8, 9, 3), test: int = 21):
    x = RNG.integers(0, 256, (n + test, *shape), dtype=np.uint8)
    return dataset("images", x[:n], np.arange(n) % 5, x[n:], np.arange(test) % 5)


def numbered(n: int = 103, test: int = 21):
    """Sample i of the training part holds the number i, so batches show where they come from."""
    x = np.arange(n + test, dtype=np.float32)[:, None]
    return dataset("numbers", x[:n], np.arange(n) % 5, x[n:], np.arange(test) % 5)


DATA = images()


def everything() -> Transforms:
    return Transforms(Standardize(), (
        Mixup(), RandomCrop(padding=2), HorizontalFlip(), Rotation(), PcaColour(), RandomResizedCrop(),
        Cutout(size=3),
    ))  # fmt: skip


def epoch(loader: Loader, number: int, start: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.copy(), t.copy()) for x, t in loader.epoch(number, start)]


def assert_same(a, b) -> None:
    assert len(a) == len(b)
    for (x, t), (y, u) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(t, u)


def threads() -> int:
    return sum(t.name.startswith("normcore-data") for t in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert threads() == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_number_of_workers_changes_no_bit(dtype):
    """0, 1, 2 and 5 workers, every augmentation at once."""
    runs = [
        epoch(Loader(DATA, 16, everything(), seed=3, workers=workers, dtype=dtype), 4)
        for workers in (0, 1, 2, 5)
    ]
    for other in runs[1:]:
        assert_same(runs[0], other)
    assert runs[0][0][0].dtype == dtype


@pytest.mark.parametrize("normalizer", [SubtractMean(), StandardizePixels(), Zca()], ids=lambda n: n.name)
def test_number_of_workers_changes_no_bit_per_pixel(normalizer):
    """The same where normalization comes first."""
    runs = [
        epoch(Loader(DATA, 16, Transforms(normalizer, [RandomCrop(padding=1)]), workers=workers), 1)
        for workers in (0, 3)
    ]
    assert_same(*runs)


def test_resuming_at_an_epoch_and_within_one():
    """A fresh loader gives epoch 3 from batch 2 on as one that went through all before."""
    old = Loader(DATA, 16, everything(), seed=1)
    before = [epoch(old, number) for number in range(4)]
    new = Loader(DATA, 16, everything(), seed=1)
    assert_same(epoch(new, 3, start=2), before[3][2:])
    assert epoch(new, 0, start=new.steps) == []


def test_randomness_belongs_to_the_sample():
    """Another batch size leaves each sample's augmentation alone; another epoch or seed changes it."""

    def by_sample(batch_size: int, number: int = 0, seed: int = 0) -> np.ndarray:
        loader = Loader(DATA, batch_size, Transforms(None, [RandomCrop(padding=3), Rotation()]), seed=seed)
        out = np.empty((103, *loader.shape), np.float32)
        order = loader.order(number)
        for step, (x, _) in enumerate(loader.epoch(number)):
            out[order[step * batch_size : step * batch_size + len(x)]] = x
        return out

    reference = by_sample(16)
    np.testing.assert_array_equal(reference, by_sample(50))
    for other in (by_sample(16, number=1), by_sample(16, seed=1)):
        assert (reference != other).any((1, 2, 3)).mean() > 0.9


def test_an_epoch_has_every_sample_once_with_its_label():
    """Shuffled anew each epoch; the last batch is smaller, a view of the same buffer."""
    loader = Loader(numbered(), 16, seed=5)
    assert (loader.steps, loader.last_batch, loader.size("train"), loader.size("test")) == (7, 7, 103, 21)
    orders = []
    for number in (0, 1):
        batches = epoch(loader, number)
        assert [len(x) for x, _ in batches] == [16] * 6 + [7]
        values = np.concatenate([x for x, _ in batches])[:, 0].astype(int)
        np.testing.assert_array_equal(np.sort(values), np.arange(103))
        np.testing.assert_array_equal(values, loader.order(number))
        np.testing.assert_array_equal(np.concatenate([t for _, t in batches]), values % 5)
        orders.append(values.tolist())
    assert orders[0] != orders[1]
    straight = epoch(Loader(numbered(), 60, shuffle=False), 0)
    assert straight[1][0][:, 0].tolist() == list(range(60, 103))


def test_drop_last():
    """The smaller batch is left out of training, never of evaluation."""
    loader = Loader(numbered(), 16, drop_last=True)
    assert (loader.steps, loader.last_batch) == (6, 16)
    assert [len(x) for x, _ in loader.epoch(0)] == [16] * 6
    assert [len(x) for x, _ in loader.evaluate()] == [16, 5]
    with pytest.raises(DataError, match="103 training samples make no batch of 200"):
        Loader(numbered(), 200, drop_last=True)


def test_evaluation_is_plain_and_in_order():
    """No random augmentation, the test part's order, the training part's statistics."""
    transforms = Transforms(Standardize(), [RandomCrop(padding=2), HorizontalFlip(), Mixup()])
    loader = Loader(DATA, 8, transforms)
    x = np.concatenate([x for x, _ in (pair for pair in epoch_of(loader, "test"))])
    raw = np.empty((21, 3, 8, 9), np.uint8)
    DATA.x_test.take(np.arange(21), raw)
    np.testing.assert_array_equal(x, transforms.apply(raw))
    labels = np.concatenate([t for _, t in epoch_of(loader, "test")])
    np.testing.assert_array_equal(labels, DATA.y_test)
    assert labels.dtype == np.int64
    assert list(loader.evaluate("validation")) == []


def epoch_of(loader: Loader, part: str):
    return [(x.copy(), t.copy()) for x, t in loader.evaluate(part)]


def test_crops_change_the_shape_in_both():
    """A random crop to a size is the middle crop in evaluation."""
    loader = Loader(DATA, 8, Transforms(None, [RandomCrop(size=6)]))
    middle = epoch_of(loader, "test")[0][0]
    assert loader.shape == middle.shape[1:] == (3, 6, 6)
    raw = np.empty((21, 3, 8, 9), np.uint8)
    DATA.x_test.take(np.arange(21), raw)
    np.testing.assert_allclose(middle, raw[:8, :, 1:7, 1:7] / 255, atol=1e-6)
    assert next(iter(loader.epoch(0)))[0].shape[1:] == (3, 6, 6)
    assert Loader(DATA, 8, Transforms(None, [CenterCrop(size=4)])).shape == (3, 4, 4)


def test_evaluating_in_the_middle_of_an_epoch():
    """Iterations under way at the same time do not share buffers, even two of the same part."""
    loader = Loader(numbered(), 16, workers=2)
    expected = epoch(loader, 0)
    got = []
    for x, t in loader.epoch(0):
        assert sum(len(y) for y, _ in loader.evaluate()) == 21
        next(iter(loader.epoch(1)))
        got.append((x.copy(), t.copy()))
    assert_same(got, expected)


def test_a_held_batch_is_not_overwritten():
    """While the consumer holds a batch, workers fill every other buffer and leave this one alone."""
    loader = Loader(numbered(), 4, workers=3)
    for x, _ in loader.epoch(0):
        before = x.copy()
        time.sleep(0.003)
        np.testing.assert_array_equal(x, before)


def test_mixed_labels():
    """Targets become shares of the net's dtype that sum to 1."""
    loader = Loader(DATA, 16, Transforms(None, [Mixup(alpha=1.0)]), dtype="float64")
    for x, targets in loader.epoch(0):
        assert (targets.shape, targets.dtype) == ((len(x), 5), np.float64)
        np.testing.assert_allclose(targets.sum(1), 1)
    assert (targets.max(1) < 0.999).any()


def test_regression_targets():
    """Values come in the net's dtype, in their own shape."""
    data = dataset("values", np.zeros((10, 3), np.float32), np.arange(20.0).reshape(10, 2))
    _, targets = next(Loader(data, 4, shuffle=False).epoch(0))
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.arange(8.0).reshape(4, 2))


class Failing:
    """Samples of which one cannot be read."""

    shape, dtype = (1,), np.dtype(np.float32)

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 103

    def take(self, indices: np.ndarray, out: np.ndarray) -> None:
        if self.bad in indices:
            raise DataError(f"sample {self.bad} is damaged")
        out[:, 0] = indices


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_in_a_worker_reaches_the_consumer(workers):
    """At its batch, not before; the loader can be used again afterwards."""
    data = dataset("failing", Failing(50), LABELS)
    loader = Loader(data, 16, shuffle=False, workers=workers)
    for _ in range(2):
        seen = 0
        with pytest.raises(DataError, match="sample 50 is damaged"):
            for x, _ in loader.epoch(0):
                seen += len(x)
        assert seen == 48
        assert threads() == 0


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_leaving_early(workers):
    """break, an exception (as Ctrl-C is one) and dropping the iterator all end the workers."""
    loader = Loader(numbered(), 4, workers=workers)
    for _ in loader.epoch(0):
        break
    assert threads() == 0
    with pytest.raises(KeyboardInterrupt):
        for _ in loader.epoch(0):
            raise KeyboardInterrupt
    iterator = loader.epoch(0)
    next(iterator)
    assert threads() <= workers
    del iterator
    assert threads() == 0
    unused = loader.epoch(0)
    assert threads() == 0
    del unused
    assert len(epoch(loader, 0)) == 26


def test_memory_does_not_grow():
    """After the first epoch, a step allocates no NumPy block over 4 KB, with mixup and colour too."""
    operations = [RandomCrop(padding=1), HorizontalFlip(), PcaColour(), Cutout(size=2), Mixup()]
    data = images(n=500, shape=(16, 16, 3), test=100)
    loader = Loader(data, 64, Transforms(Standardize(), operations), workers=2)
    for number in range(2):
        for _ in loader.epoch(number):
            pass
        for _ in loader.evaluate():
            pass
    assert len(loader._idle[("train", True)]) == 1
    numpy_only = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    iterator = loader.epoch(2)  # makes the order: one array an epoch, not a step
    next(iterator)
    tracemalloc.start()
    try:
        largest = 0
        for _ in iterator:
            trace = tracemalloc.take_snapshot().filter_traces([numpy_only])
            largest = max(largest, *(t.size for t in trace.traces), 0)
    finally:
        tracemalloc.stop()
    assert largest <= 4096


def test_memory_of_a_pass():
    """The peak of a whole pass after the first stays under half a batch: its buffers are used again."""
    data = images(n=1000, shape=(16, 16, 3))
    loader = Loader(data, 128, Transforms(Standardize(), [RandomCrop(padding=1)]), workers=1)
    batch_bytes = 128 * 3 * 16 * 16 * 4
    for _ in loader.epoch(0):
        pass
    tracemalloc.start()
    try:
        for _ in loader.epoch(1):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < batch_bytes / 2


def test_own_memory_for_batches():
    """`allocate` makes the buffers that batches are views of: pinned memory on a GPU."""
    made = []

    def allocate(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    loader = Loader(numbered(), 16, allocate=allocate)
    for x, targets in loader.epoch(0):
        assert any(np.shares_memory(x, a) for a in made)
        assert any(np.shares_memory(targets, a) for a in made)


def test_validation_is_stratified_and_seeded():
    """The share of every class, disjoint from training, the same for a seed, measured on the rest alone."""
    x = np.arange(400, dtype=np.float32)[:, None]
    y = np.repeat([0, 1, 2], [300, 80, 20])
    data = dataset("skewed", x, y, x[:10], y[:10])
    parts = divide(data, validation=0.25, seed=7)
    assert np.bincount(y[parts["validation"].indices]).tolist() == [75, 20, 5]
    both = np.concatenate([parts["train"].indices, parts["validation"].indices])
    np.testing.assert_array_equal(np.sort(both), np.arange(400))
    again, other = (divide(data, 0.25, seed=seed)["validation"].indices for seed in (7, 8))
    np.testing.assert_array_equal(parts["validation"].indices, again)
    assert (again != other).any()
    transforms = Transforms(Standardize())
    loader = Loader(data, 16, transforms, validation=0.25, seed=7)
    np.testing.assert_allclose(transforms.arrays["normalize.shift"], x[parts["train"].indices].mean(0))
    assert [loader.count(part) for part in ("train", "validation", "test")] == [19, 7, 1]
    seen = np.concatenate([t for _, t in epoch_of(loader, "validation")])
    assert np.bincount(seen).tolist() == [75, 20, 5]


def test_split_of_small_classes_and_of_values():
    """The whole share is right though each class is too small for it; regression is split without classes."""
    data = dataset("small", np.zeros((40, 2)), np.arange(40) // 4)
    assert len(divide(data, validation=0.1)["validation"]) == 4
    values = dataset("values", np.zeros((40, 2)), np.arange(40.0))
    parts = divide(values, validation=0.1, test=0.2)
    assert {name: len(part) for name, part in parts.items()} == {"train": 28, "validation": 4, "test": 8}
    assert len(np.unique(np.concatenate([p.indices for p in parts.values()]))) == 40
    with pytest.raises(DataError, match="the validation part is empty"):
        divide(values, validation=0.001)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"workers": -1}])
def test_bad_arguments(bad):
    """Refused when made."""
    with pytest.raises(ParameterError):
        Loader(numbered(), **bad)


def test_fifty_epochs_do_not_drift():
    """Epoch 50 of a loader that went through all before equals that of a new one; one ring serves all."""
    loader = Loader(DATA, 32, everything(), workers=2)
    for number in range(50):
        for _ in loader.epoch(number):
            pass
    assert len(loader._idle[("train", True)]) == 1
    assert_same(epoch(loader, 50), epoch(Loader(DATA, 32, everything(), workers=1), 50))


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt; a process that a shell starts in its background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_while_waiting_for_a_slow_worker(interruptible):
    """Ctrl-C reaches a consumer that waits for a batch, at once, and the worker ends."""

    class Slow(Failing):
        def take(self, indices: np.ndarray, out: np.ndarray) -> None:
            time.sleep(0.5)
            super().take(indices, out)

    loader = Loader(dataset("slow", Slow(-1), LABELS), 16, workers=1)
    timer = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
    started = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in loader.epoch(0):
            pass
    timer.join()
    assert time.perf_counter() - started < 2
