"""data.json in a run's folder: what `predict` must know of the data, so that it works without them."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normcore.training.run_folder import RunFolder

FILE = "data.json"


@dataclass(frozen=True)
class RunData:
    """input: a sample's shape as the net takes it; sample: as the source gives it (both channels first). lengths: a
    sample is a sequence of sample[0] steps or fewer."""

    input: tuple[int, ...]
    sample: tuple[int, ...]
    dtype: str
    classes: int | None
    class_names: tuple[str, ...] | None
    lengths: bool


def write(run: "RunFolder", net: Any, dataset: Any) -> None:
    from normcore.training.checkpoint import write_bytes

    described = {
        "input": list(net.sample_shape),
        "sample": list(dataset.shape),
        "dtype": str(dataset.x_train.dtype),
        "classes": dataset.classes,
        "class_names": list(dataset.class_names) if dataset.class_names is not None else None,
        "lengths": dataset.lengths_train is not None,
    }
    write_bytes(run.path / FILE, json.dumps(described, indent=1).encode())


def read(run: "RunFolder") -> RunData:
    """Raises DataError when the file is missing or damaged."""
    from normcore.errors import DataError

    path = run.path / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = found["class_names"]
        return RunData(
            tuple(found["input"]),
            tuple(found["sample"]),
            found["dtype"],
            found["classes"],
            tuple(names) if names else None,
            bool(found.get("lengths", False)),  # runs of earlier versions do not say
        )
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{path}: missing or damaged ({fault}); `normcore train` writes it") from None
