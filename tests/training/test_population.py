"""Population statistics (Ioffe and Szegedy 2015, Algorithm 2): means of batch means and of unbiased batch variances."""

import numpy as np
import pytest

from normcore.errors import ShapeError
from normcore.training.loop import Trainer

from . import small


def test_exact_statistics_are_the_means_over_the_batches():
    net = small.network(
        ["flatten", "batch_norm", {"dense": 10}], train={"epochs": 1, "population_statistics": "exact"}
    )
    trainer = Trainer(net, optimizer={"sgd": {"lr": 0.0}})
    trainer.fit()
    means, variances = [], []
    for x, _ in net.loader().evaluate("train"):
        flat = x.reshape(len(x), -1).astype(np.float64)
        means.append(flat.mean(axis=0))
        variances.append(flat.var(axis=0, ddof=1))
    np.testing.assert_allclose(
        net.state["batch_norm1.running_mean"], np.mean(means, axis=0), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        net.state["batch_norm1.running_var"], np.mean(variances, axis=0), rtol=1e-3, atol=1e-5
    )


def test_a_last_batch_of_one_is_refused_before_the_first_step():
    data = {"source": "mnist_sample", "batch_size": 5999}
    net = small.network(["flatten", "batch_norm", {"dense": 10}], data=data)
    with pytest.raises(ShapeError, match="drop_last"):
        Trainer(net).prepare()
    Trainer(
        small.network(["flatten", "batch_norm", {"dense": 10}], data={**data, "drop_last": True})
    ).prepare()
