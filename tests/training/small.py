"""A small network on the packaged digits, and helpers, for the tests of training."""

from typing import Any

from normcore.config.config import from_mapping
from normcore.network import Network

MLP: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "data": {
        "source": "mnist_sample",
        "batch_size": 500,
        "normalize": "standardize",
        "augment": [{"random_crop": {"padding": 1}}],
    },
    "train": {"epochs": 2},
}


def network(layers: list[Any], **sections: Any) -> Network:
    """A network of these layers on the digits, with sections of MLP replaced."""
    return Network(from_mapping({**MLP, "network": layers, **sections}))


def digits(epochs: int = 2, **sections: Any) -> Network:
    """Batch norm, dropout and two dense layers: statistics, random numbers and momentum all take part."""
    layers = ["flatten", {"dense": 32}, "batch_norm", "relu", {"dropout": 0.2}, {"dense": 10}]
    return network(layers, **{"train": {"epochs": epochs}, **sections})
