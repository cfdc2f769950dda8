"""Whether data, network and loss fit together, found out before the first step."""

import math
from typing import Any

import numpy as np

from normcore.config.entries import Place
from normcore.errors import ConfigError, DataError, Problem, ShapeError, UsageError
from normcore.network import Network
from normcore.op import Op, Tensor
from normcore.sequences import Sequences


def check(net: Network, loss: Any, loader: Any) -> bool:
    """Raises DataError for samples or classes that do not fit, UsageError for mixed targets, and ShapeError for a last batch too
    small for batch statistics. Returns whether targets are mixed: shares of the classes."""
    classes = check_samples(net, loss, loader)
    mixes = check_mixing(loss, classes, loader.transforms)
    _check_last_batch(net, loader)
    _check_values(net, loader)
    return mixes


def check_mixing(loss: Any, classes: int | None, transforms: Any) -> bool:
    """Whether targets are mixed; raises UsageError for a loss that does not take mixed ones."""
    mixes = classes is not None and bool(transforms.mixes)
    if mixes and classes is not None and loss.shares(Tensor((1, classes))) is None:
        raise UsageError(
            f"data.augment: mixup makes shares of classes of the targets, {loss.name} takes class numbers; "
            "leave mixup out, or train with cross_entropy"
        )
    return mixes


def check_samples(net: Network, loss: Any, loader: Any, cut: bool = False) -> int | None:
    """Raises DataError for samples or classes that the network does not take; returns its number of classes.

    cut: images will be cut to the network's size, so that only their channels count.
    """
    dataset = loader.dataset
    have, wanted = tuple(loader.shape), tuple(net.sample_shape)
    if have[:1] != wanted[:1] if cut else have != wanted:
        raise DataError(
            f"{dataset.name}: samples have shape {have}, the network takes {wanted}{_advice(have, wanted)}"
        )
    output = Tensor((1, *net.output_shape), net.dtype)
    return check_targets(loss, output, net.output_place, net.reads_lengths, dataset)


def check_targets(loss: Any, output: Tensor, place: Place, reads_lengths: bool, dataset: Any) -> int | None:
    """The number of classes, None where targets are none. Raises ConfigError, with the last layer's place, for an output
    that the loss does not take, and DataError for data without what the network reads or with more classes."""
    if reads_lengths != (dataset.lengths_train is not None):
        raise DataError(
            f"{dataset.name}: a layer of the network reads `lengths`, the data bring none; add lengths_train and "
            "lengths_test to them"
            if reads_lengths
            else f"{dataset.name}: the data bring lengths of sequences, no layer of the network reads them; give the "
            "recurrent layers `inputs: [input, lengths]`"
        )
    try:
        loss.targets(output)  # says so when the network does not end in scores at all
    except ShapeError as fault:
        if not place.line:  # a network made in Python
            raise
        raise ConfigError([Problem(str(fault), place.file, place.line, place.column)]) from None
    classes: int | None = loss.classes(output)
    if classes is not None and dataset.classes is not None and dataset.classes > classes:
        raise DataError(
            f"{dataset.name}: labels go up to {dataset.classes - 1}, but the network ends in {classes} classes (0 to "
            f"{classes - 1}); make the last layer's out_features {dataset.classes}"
        )
    return classes


def _advice(have: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What to do about the first difference of two sample shapes, channels first."""
    if len(have) != len(wanted):
        return "; change input: in the network's file, or give other data"
    if have[0] != wanted[0] and len(have) == 3:
        return (
            f"; for images of a folder set data.channels: {wanted[0]}, or change the network's file to "
            f"input: {list(have)}"
        )
    if len(have) == 3:
        return "; bring the images to that size (data.size, or a crop in data.augment)"
    return "; give data of that shape, or change input: in the network's file"


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


def _check_values(net: Network, loader: Any) -> None:
    """Raises DataError for a sample, named by its place in the data, that the op which reads it refuses."""
    readers = _readers(net, loader.last_batch)
    for part in loader.parts if readers else ():
        indices = loader.parts[part].indices
        for number, (x, _) in enumerate(loader.evaluate(part)):
            values = x.x if isinstance(x, Sequences) else x
            for node in readers:
                found = node.op.refused(values.reshape(len(x), *node.inputs[0].tensor.shape[1:]))
                if found is None or not found[0].any():
                    continue
                sample = indices[number * loader.batch_size + int(found[0].argmax())]
                source = "test" if loader.parts[part].x is loader.dataset.x_test else "training"
                raise DataError(
                    f"{loader.dataset.name}: {source} sample {sample} (counted from 0) {found[1]}, as {node.path} sees "
                    "it after data preparation; leave it out"
                )


def _readers(net: Network, batch: int) -> list[Any]:
    """Nodes that read the net's input as it comes, or a view of it, and may refuse some of it."""
    graph = net.program(batch, True, keep=False).graph
    views, found = {id(graph.input)}, []
    for node in graph.nodes:
        if node.inputs and id(node.inputs[0]) in views:
            if node.op.is_view:
                views |= {id(v) for v in node.outputs}
            elif type(node.op).refused is not Op.refused:
                found.append(node)
    return [n for n in found if n.op.refused(np.zeros((0, *n.inputs[0].tensor.shape[1:]))) is not None]


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
