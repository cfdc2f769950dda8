"""Whether data, network and loss fit together, found out before the first step."""

import math
from typing import Any

from normcore.errors import DataError, ShapeError
from normcore.network import Network
from normcore.op import Tensor


def check(net: Network, loss: Any, loader: Any) -> bool:
    """Raises DataError for samples, classes or mixed targets that do not fit, and ShapeError for a last batch too
    small for batch statistics. Returns whether targets are mixed: shares of the classes."""
    dataset = loader.dataset
    if tuple(loader.shape) != tuple(net.sample_shape):
        raise DataError(
            f"{dataset.name}: samples have shape {loader.shape}, the network takes {net.sample_shape}"
        )
    classes = loss.classes(net.program(loader.batch_size, True, keep=False).graph.output.tensor)
    if classes is not None and dataset.classes is not None and dataset.classes > classes:
        raise DataError(
            f"{dataset.name}: labels go up to {dataset.classes - 1}, but the network ends in {classes} classes (0 to "
            f"{classes - 1}); make the last layer's out_features {dataset.classes}"
        )
    mixes = classes is not None and loader.transforms.mixes
    if mixes and loss.shares(Tensor((1, classes), net.dtype)) is None:
        raise DataError(
            f"data.augment: mixup makes shares of classes of the targets, {loss.name} takes class numbers; "
            "leave mixup out, or train with cross_entropy"
        )
    _check_last_batch(net, loader)
    return bool(mixes)


def _check_last_batch(net: Network, loader: Any) -> None:
    last = loader.last_batch
    for node in net.program(last, True, keep=False).nodes:
        shape = node.inputs[0].tensor.shape if node.inputs else ()
        channels = max(1, shape[1]) if len(shape) > 1 else 1
        if node.op.needs_batch and shape and math.prod(shape) // channels <= 1:
            raise ShapeError(
                f"{node.path}: the last batch of an epoch has {last} sample, which leaves one value per channel to its "
                "batch statistics; set data.drop_last: true or another data.batch_size"
            )


def batch_sizes(loader: Any) -> tuple[set[int], set[int]]:
    """Batch sizes that training and evaluation will see."""
    training = {min(loader.batch_size, loader.size("train")), loader.last_batch}
    evaluation = set()
    for part in ("validation", "test"):
        size = loader.size(part)
        if size:
            evaluation |= {
                min(loader.batch_size, size),
                size % loader.batch_size or min(loader.batch_size, size),
            }
    return training, evaluation
