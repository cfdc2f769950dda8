"""Batches of a dataset, prepared ahead by worker threads in a ring of buffers that is allocated once.

    loader = Loader(data, batch_size=64, transforms=Transforms(Standardize()), seed=0)
    for epoch in range(10):
        for x, targets in loader.epoch(epoch): ...
    for x, targets in loader.evaluate(): ...

A batch is a view of a buffer and lives until the next one is asked for. The order of an epoch and everything
random in it follow from (seed, epoch, sample index) alone: any number of workers gives the same bits, and an
epoch can be started anywhere. Workers run NumPy and Pillow only, never parallel kernels. An error in a worker
is raised by the consumer at the batch it belongs to. Ending an iteration early, by `break`, an error or
Ctrl-C, stops its workers.
"""

import threading
from collections.abc import Callable, Iterator

import numpy as np

from normcore import random
from normcore.data.dataset import Dataset, Part, divide
from normcore.data.preparation import Allocate, Preparation
from normcore.data.transforms import Transforms
from normcore.errors import DataError, ParameterError
from normcore.sequences import Sequences

Batch = tuple[np.ndarray | Sequences, np.ndarray]


class Loader:
    """Batches of the training, validation and test part; fits `transforms` to the training part if nobody
    has.

    dtype: of x, "float32" or "float64". workers: threads, 0 prepares each batch when it is asked for.
    drop_last leaves out a smaller last training batch. allocate(shape, dtype) makes the buffers, pinned
    memory for example. validation and test: shares of the training part, see `divide`. Raises DataError and
    ParameterError.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 64,
        transforms: Transforms | None = None,
        *,
        seed: int = 0,
        workers: int = 1,
        dtype: str = "float32",
        drop_last: bool = False,
        shuffle: bool = True,
        validation: float = 0.0,
        test: float = 0.0,
        allocate: Allocate = np.empty,
    ) -> None:
        if batch_size < 1:
            raise ParameterError("batch_size", "at least 1", batch_size)
        if workers < 0:
            raise ParameterError("workers", "a number of threads, 0 or more", workers)
        self.dataset, self.batch_size, self.seed, self.workers = dataset, batch_size, seed, workers
        self.dtype, self.drop_last, self.shuffle = dtype, drop_last, shuffle
        self.parts = divide(dataset, validation, test, seed)
        self.transforms = transforms or Transforms()
        train = self.parts["train"]
        if drop_last and len(train) < batch_size:
            raise DataError(
                f"{dataset.name}: {len(train)} training samples make no batch of {batch_size}, and "
                f"drop_last leaves "
                "smaller ones out; lower data.batch_size or drop data.drop_last"
            )
        if train.lengths is not None and (self.transforms.mixes or self.transforms.normalizer.per_pixel):
            raise DataError(
                f"{dataset.name}: sequences of different lengths take neither mixup nor a normalization of single "
                "places; leave data.augment out and use standardize, minmax or none"
            )
        if not self.transforms.fitted:
            lengths = train.lengths
            if lengths is None and dataset.sequences:
                lengths = np.full(len(train.x), train.x.shape[0])
            self.transforms.fit(train.x, train.indices, lengths)
        self._allocate = allocate
        self._idle: dict[tuple[str, bool], list[_Ring]] = {}
        # Shapes that do not fit are errors here, not in epoch 1.
        self.shape = self.transforms.output_shape(dataset.shape, training=True)
        evaluated = self.transforms.output_shape(dataset.shape, training=False)
        if evaluated != self.shape:
            raise DataError(
                f"data.augment: training samples become {self.shape}, samples for evaluation {evaluated}; "
                "the last augmentation that changes the size must give the same in both"
            )

    @property
    def steps(self) -> int:
        """Batches in one training epoch."""
        return self.count("train")

    def count(self, part: str) -> int:
        """Batches in one pass over a part; 0 for a part that does not exist."""
        size = self.size(part)
        return size // self.batch_size if part == "train" and self.drop_last else -(-size // self.batch_size)

    def size(self, part: str) -> int:
        """Samples in "train", "validation" or "test"; 0 for a part that does not exist."""
        return len(self.parts[part]) if part in self.parts else 0

    @property
    def last_batch(self) -> int:
        """Samples in the last batch of a training epoch."""
        rest = self.size("train") % self.batch_size
        return self.batch_size if rest == 0 or self.drop_last else rest

    def order(self, number: int) -> np.ndarray:
        """The sample indices of a training epoch in their order (int64)."""
        indices = self.parts["train"].indices
        if not self.shuffle:
            return indices
        key = random.key_of(self.seed, "data.order")
        return np.take(indices, random.permutation(key, len(indices), call=number))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches (x, targets) of training epoch `number`, from batch `start` on.

        x: (n, *shape) of dtype, or Sequences with their lengths; targets: int64 (n,) or, for values and mixed
        labels, dtype (n, ...).
        """
        return self._batches("train", self.order(number), True, number, start, self.count("train"))

    def evaluate(self, part: str = "test") -> Iterator[Batch]:
        """All samples of a part in their order, without random augmentation; none for a part that does not
        exist."""
        if part not in self.parts:
            return iter(())
        steps = -(-self.size(part) // self.batch_size)
        return self._batches(part, self.parts[part].indices, False, 0, 0, steps)

    def _batches(
        self, part: str, order: np.ndarray, training: bool, epoch: int, start: int, stop: int
    ) -> Iterator[Batch]:
        key = (part, training)
        idle = self._idle.setdefault(key, [])
        ring = idle.pop() if idle else self._ring(self.parts[part], training)

        def fill(number: int, worker: int, x: np.ndarray | Sequences, targets: np.ndarray) -> int:
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            return ring.preparations[worker].fill(indices, epoch, x, targets)

        feed = _Feed(ring, fill, start, stop)
        try:
            for number in range(start, stop):
                x, targets, n = feed.get(number)
                yield x[:n], targets[:n]
        finally:
            if feed.close():
                idle.append(ring)

    def _ring(self, part: Part, training: bool) -> "_Ring":
        preparations = [
            Preparation(
                self.transforms,
                part,
                min(self.batch_size, len(part)),
                self.dtype,
                training=training,
                classes=self.dataset.classes,
                seed=self.seed,
            )
            for _ in range(max(1, self.workers))
        ]
        # One buffer is held by the consumer, one is ready, and each worker fills one.
        buffers = self.workers + 2 if self.workers else 1
        return _Ring(
            preparations, [preparations[0].new_output(self._allocate) for _ in range(buffers)], self.workers
        )


class _Ring:
    """The memory of one iteration: a preparation for each worker, and the buffers that batches go round
    in."""

    def __init__(self, preparations: list[Preparation], buffers: list[Batch], workers: int) -> None:
        self.preparations, self.buffers, self.workers = preparations, buffers, workers


class _Feed:
    """Hands batch numbers to worker threads and their batches, in order, to the consumer.

    Batch n lies in buffer n % len(buffers); it may be filled once the consumer has let go of batch
    n - len(buffers), which it does by asking for a later one.
    """

    def __init__(
        self,
        ring: _Ring,
        fill: Callable[[int, int, np.ndarray | Sequences, np.ndarray], int],
        start: int,
        stop: int,
    ) -> None:
        self._ring, self._fill = ring, fill
        self._next, self._stop_at = start, stop  # the batch to be filled next; the end
        self._wanted = start  # batches before this one are let go
        self._sizes: dict[int, int] = {}  # ready batches: number -> samples
        self._errors: dict[int, BaseException] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"normcore-data-{worker}", daemon=True)
            for worker in range(min(ring.workers, stop - start))
        ]
        for thread in self._threads:
            thread.start()

    def get(self, number: int) -> tuple[np.ndarray | Sequences, np.ndarray, int]:
        """Batch `number` with its size; raises what its worker raised."""
        x, targets = self._ring.buffers[number % len(self._ring.buffers)]
        if not self._threads:
            return x, targets, self._fill(number, 0, x, targets)
        with self._changed:
            self._wanted = number
            self._sizes.pop(number - 1, None)
            self._changed.notify_all()
            while number not in self._sizes:
                if number in self._errors:
                    raise self._errors[number]
                self._changed.wait(0.2)  # a bare wait cannot be interrupted by Ctrl-C on Windows
            return x, targets, self._sizes[number]

    def close(self) -> bool:
        """Stop the workers; True once all have ended, so that the ring may be used again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._errors.clear()
        return True

    def _work(self, worker: int) -> None:
        buffers = self._ring.buffers
        while True:
            with self._changed:
                while (
                    not self._closed
                    and self._next < self._stop_at
                    and self._next >= self._wanted + len(buffers)
                ):
                    self._changed.wait()
                if self._closed or self._next >= self._stop_at:
                    return
                number = self._next
                self._next += 1
            x, targets = buffers[number % len(buffers)]
            try:
                n = self._fill(number, worker, x, targets)
            except BaseException as fault:  # whatever it is, it belongs to the consumer
                with self._changed:
                    self._errors[number] = fault
                    self._next = self._stop_at
                    self._changed.notify_all()
                return
            with self._changed:
                self._sizes[number] = n
                self._changed.notify_all()
