"""Optimizers against torch, ten steps, and clipping, decay groups and rates against plain NumPy."""

import numpy as np
import pytest

from normcore.devices import device as devices
from normcore.errors import NumbersError, ParameterError
from normcore.parameters import ParameterStore
from normcore.training.optimizer_binding import OptimizerBinding
from normcore.training.optimizers import Adagrad, Adam, AdamW, RmsProp, Sgd

from . import small


def make_store():
    net = small.network(["flatten", {"dense": 12}, {"dense": 3}])
    rng = np.random.default_rng(5)
    for array in net.parameters.values():
        array[...] = rng.standard_normal(array.shape)
    return net.store


CASES = [
    Sgd(lr=0.1),
    Sgd(lr=0.1, momentum=0.9, weight_decay=0.01),
    Sgd(lr=0.1, momentum=0.9, nesterov=True),
    Sgd(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
    Adam(lr=0.01, weight_decay=0.02),
    AdamW(lr=0.01, weight_decay=0.2, betas=(0.8, 0.99)),
    RmsProp(weight_decay=0.1),
    RmsProp(lr=0.02, alpha=0.9, momentum=0.8),
    RmsProp(centered=True, eps=1e-3),
    RmsProp(lr=0.02, alpha=0.9, momentum=0.8, centered=True, eps=1e-3),
    Adagrad(lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.3),
]


@pytest.mark.peers
@pytest.mark.parametrize("optimizer", CASES, ids=str)
def test_ten_steps_like_torch(optimizer):
    torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
    store = make_store()
    bound = OptimizerBinding(optimizer, store, devices.get("cpu"))
    peers = {k: torch.tensor(v.copy(), requires_grad=True) for k, v in store.parameters.items()}
    group = {"params": list(peers.values()), "weight_decay": optimizer.weight_decay}
    peer = optimizer.in_torch(torch, [group])
    rng = np.random.default_rng(1)
    for _ in range(10):
        for name, gradient in store.gradients.items():
            gradient[...] = rng.standard_normal(gradient.shape)
            peers[name].grad = torch.tensor(gradient.copy())
        bound.step(optimizer.lr)
        peer.step()
    for name, array in store.parameters.items():
        np.testing.assert_allclose(array, peers[name].detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=name)


def test_decay_spares_what_no_decay_names_and_frozen_parameters_stay():
    store = make_store()
    before = {k: v.copy() for k, v in store.parameters.items()}
    bound = OptimizerBinding(
        Sgd(lr=1.0, weight_decay=0.1, no_decay=("bias",)), store, devices.get("cpu"), {"dense1": 0.0}
    )
    store.flat_gradients[...] = 0
    bound.step(1.0)
    assert np.array_equal(store.parameters["dense1.weight"], before["dense1.weight"])
    assert np.array_equal(store.parameters["dense2.bias"], before["dense2.bias"])
    np.testing.assert_allclose(store.parameters["dense2.weight"], 0.9 * before["dense2.weight"], rtol=1e-6)


def test_clipping_by_norm_and_by_value():
    store = make_store()
    before = {k: v.copy() for k, v in store.parameters.items()}
    rng = np.random.default_rng(2)
    for gradient in store.gradients.values():
        gradient[...] = rng.standard_normal(gradient.shape)
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in store.gradients.values()))
    bound = OptimizerBinding(Sgd(lr=1.0), store, devices.get("cpu"), clip_norm=0.5, clip_value=0.01)
    assert bound.gradient_norm() == pytest.approx(norm, rel=1e-6)
    bound.step(1.0)
    for name, array in store.parameters.items():
        expected = before[name] - np.clip(store.gradients[name] * (0.5 / norm), -0.01, 0.01)
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_gone_bad_is_an_error():
    store = make_store()
    store.flat_gradients[...] = np.inf
    with pytest.raises(NumbersError, match="learning rate"):
        OptimizerBinding(Sgd(), store, devices.get("cpu"), clip_norm=1.0).step(0.1)


def test_wrong_parameters_are_named():
    with pytest.raises(ParameterError, match="momentum"):
        Sgd(momentum=1.5)
    with pytest.raises(ParameterError, match="nesterov"):
        Sgd(nesterov=True)


def test_padding_between_arrays_stays_zero():
    store = make_store()
    used = np.zeros(store.flat.size, bool)
    for segment in store.segments:
        used[segment.start : segment.stop] = True
    assert isinstance(store, ParameterStore) and not used.all()
    assert not store.flat[~used].any()
