"""DataSource: what a source of samples declares; plugins bring theirs by the hook normcore_datasets.

class Digits(normcore.DataSource, name="digits"):
    \"\"\"One line for `normcore plugins list`.\"\"\"
    path: str                                   # fields are the keys beside `source: digits` in the YAML
    def load(self, base):
        x = numpy.load(located(self.path, base))
        return dataset("digits", x, y, x_test, y_test)      # normcore.data.dataset.dataset checks them
        # sequences (N, T, C) that end at different steps: lengths_train=ends, lengths_test=ends_test
"""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from normcore.component import Component
from normcore.errors import DataError, PluginError

if TYPE_CHECKING:
    from normcore.data.dataset import Dataset


class DataSource(Component):
    """Base of every data source. Its fields stand in the YAML's `data:` section beside the general keys."""

    kind: ClassVar[str] = "data source"

    def load(self, base: Path) -> "Dataset":
        """Open the data; called once a run. `base` is the folder that relative paths start at. Raises
        DataError."""
        raise PluginError(f"data source {self.name!r} declares no load(); see normcore/data/source.py")


def located(path: str, base: Path, what: str = "file") -> Path:
    """`path` from `base`, existing. what: "file", "folder" or "file or folder". Raises DataError."""
    full = base / Path(path).expanduser()
    if not full.exists():
        near = full.parent
        while not near.exists():
            near = near.parent
        raise DataError(f"{full}: there is no such {what} (the path exists up to {near}); set data.path")
    if what == "file" and not full.is_file():
        raise DataError(f"{full} is a folder; data.path must name a file here")
    if what == "folder" and not full.is_dir():
        raise DataError(f"{full} is a file; data.path must name a folder here")
    return full
