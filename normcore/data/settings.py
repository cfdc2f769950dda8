"""The `data:` section of a network's file: the keys that every source shares, and how they become a Loader.

data:
  source: mnist_sample             # its own keys (path, size, ...) stand beside these
  batch_size: 64
  normalize: standardize           # or {zca: {eps: 0.1}}
  augment: [{random_crop: {padding: 2}}, horizontal_flip]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from normcore.component import Component
from normcore.errors import ParameterError, nearest

if TYPE_CHECKING:
    import numpy as np

    from normcore.data.dataset import Dataset
    from normcore.data.loader import Loader
    from normcore.data.preparation import Allocate
    from normcore.data.source import DataSource
    from normcore.data.transforms import Transforms

C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class DataSettings:
    """What is asked of the data, whatever its source.

    source: the name of a data source; batch_size: samples a step normalize: none, standardize,
    standardize_pixels, subtract_mean, minmax or zca, measured on the training part augment: random changes to
    the training samples, each a name or {name: parameters} drop_last: leave out a smaller last batch of an
    epoch; shuffle: a new random order each epoch validation: the share of the training part set aside, of
    each class the same; test: the same for sources that bring no test part; workers: threads that prepare
    batches, 0 for none
    """

    source: str
    batch_size: int = 64
    normalize: str | dict[str, Any] = "none"
    augment: tuple[str | dict[str, Any], ...] = ()
    drop_last: bool = False
    shuffle: bool = True
    validation: float = 0.0
    test: float = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ParameterError for a value that cannot be."""
        if self.batch_size < 1:
            raise ParameterError("batch_size", "at least 1", self.batch_size)
        if self.workers < 0:
            raise ParameterError("workers", "a number of threads, 0 or more", self.workers)
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 <= share < 1:
                raise ParameterError(name, "a share of the training part, from 0 to below 1", share)
        if self.validation + self.test >= 1:
            raise ParameterError(
                "validation", "shares that leave something to train on", self.validation + self.test
            )
        self.transforms()

    def transforms(self) -> "Transforms":
        """The normalization and augmentations, not yet fitted."""
        from normcore.data.augment import AUGMENTATIONS
        from normcore.data.normalize import NORMALIZERS
        from normcore.data.transforms import Transforms

        normalizer = component_of("normalize", NORMALIZERS, self.normalize)
        return Transforms(normalizer, [component_of("augment", AUGMENTATIONS, item) for item in self.augment])


def component_of(key: str, known: Mapping[str, type[C]], item: str | Mapping[str, Any]) -> C:
    """A component as YAML gives it: `name`, `{name: {parameter: value}}` or `{name: first parameter's
    value}`."""
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ParameterError(key, "a name or {name: parameters}", item)
    name, values = next(iter(item.items()))
    if name not in known:
        raise ParameterError(key, f"the name of a known one{nearest(str(name), known)}", name)
    made = known[name]
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        parameters = made.parameters()
        if not parameters:
            raise ParameterError(key, f"{name} without parameters", values)
        values = {parameters[0].name: values}
    return made.make(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})  # type: ignore[no-any-return]


def open_loader(
    settings: DataSettings,
    source: "DataSource",
    base: Path,
    *,
    seed: int = 0,
    dtype: str = "float32",
    arrays: "Mapping[str, np.ndarray] | None" = None,
    allocate: "Allocate | None" = None,
    dataset: "Dataset | None" = None,
) -> "Loader":
    """Load the source (unless its dataset is given) and make its Loader.

    arrays: a run's fitted ones, instead of measuring. Raises DataError.
    """
    import numpy as np

    from normcore.data.loader import Loader
    from normcore.errors import DataError

    data = source.load(base) if dataset is None else dataset
    if data.x_test is None and settings.test == 0:
        raise DataError(
            f"{data.name} has no test part; add one, or set data.test to the share of the training part to "
            f"set aside (0.2)"
        )
    transforms = settings.transforms()
    if arrays is not None:
        transforms.restore(arrays)
    return Loader(
        data,
        settings.batch_size,
        transforms,
        seed=seed,
        workers=settings.workers,
        dtype=dtype,
        drop_last=settings.drop_last,
        shuffle=settings.shuffle,
        validation=settings.validation,
        test=settings.test,
        allocate=np.empty if allocate is None else allocate,
    )
