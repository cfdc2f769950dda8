"""The data sources that come with normcore; normcore.builtins offers them by the hook normcore_datasets."""

from normcore.data.source import DataSource
from normcore.data.sources.arrays import MnistSample, Npy, Npz
from normcore.data.sources.cifar import Cifar10, Cifar100
from normcore.data.sources.csv_table import Csv
from normcore.data.sources.idx import Idx
from normcore.data.sources.images import Images

SOURCES: dict[str, type[DataSource]] = {
    source.name: source for source in (Cifar10, Cifar100, Csv, Idx, Images, MnistSample, Npy, Npz)
}
