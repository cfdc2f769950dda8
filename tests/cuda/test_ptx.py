"""Every CUDA kernel of every op compiles for Ampere and Hopper, spills nothing, and stays in its precision.

Needs the extra `cuda` for its compilers; neither a driver nor a GPU.
"""

import re

import numpy as np
import pytest

import normcore
from normcore.elementwise_ops import FusedChain
from normcore.registry import default
from normcore.storage import array_dtype
from normcore.testing import ptx
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(ptx.missing() is not None, reason=str(ptx.missing())),
]
# Registers a thread of an op's kernels may take, where the op keeps to fewer than the 255 there are: more, and fewer
# warps run at once. 64 leave room for all 1024 threads of a block, 128 for 512: enough where each thread has several
# loads of 16 bytes on their way.
REGISTERS = {
    "batch_norm": 128,
    "batch_renorm": 128,
    "layer_norm": 144,  # rows that a block shares
    "rms_norm": 144,
    "group_norm": 160,
    "instance_norm": 144,
    "mean_variance_norm": 144,
    "dynamic_tanh": 104,
    "filter_response_norm": 136,
    "decorrelated_batch_norm": 80,
    "lp_norm": 88,
    "local_response_norm": 128,
}
OPS = {s.name: s.component for s in default().all("op") if s.component.has_cuda()}


def launches(cls):
    """Every kernel with every combination of argument types that the op's samples launch, once each."""
    found = {}
    for k, sample in enumerate(samples_of(cls)):
        for format in cls.formats_on("cuda"):
            for dtype in ("float32", "float64") if k == 0 else ("float32",):
                for training in (True, False):
                    op = cls.make(**sample.params)
                    for launch in ptx.record(op, sample.input_shapes, dtype, format, training):
                        found.setdefault((launch.kernel, launch.types), launch)
    return list(found.values())


def faults_of(recorded, budget=255):
    """What is wrong with these kernels, on both architectures. budget: of registers."""
    found = []
    for launch in recorded:
        # One architecture for float64: what it could show beyond the other is in the float32 kernel already.
        for architecture in ptx.ARCHITECTURES if launch.dtype == "float32" else ("sm_90",):
            costs = ptx.resources(launch, architecture)
            found += [f"{costs.label}: {costs.kernel} on {architecture} {f}" for f in costs.faults]
            assert costs.registers > 0
            if costs.registers > budget:
                found.append(
                    f"{costs.label}: {costs.kernel} on {architecture} takes {costs.registers} registers"
                )
    return found


@pytest.mark.parametrize("name", OPS)
def test_kernels_compile_and_fit(name):
    try:
        recorded = launches(OPS[name])
    except Skipped as reason:
        pytest.skip(str(reason))
    assert recorded
    faults = faults_of(recorded, REGISTERS.get(name, 255))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        ("cross_entropy", "sgd"),
        ("shares", "adam"),
        ("hinge", "adagrad"),
        ("huber", "rmsprop"),
        ("mse", "adamw"),
        ("binary_cross_entropy_with_logits", "sgd"),
    ],
)
def test_the_engines_own_kernels(loss, optimizer):
    """Losses, optimizers, clipping, sums of gradients, format changes and fused chains, from a training step."""
    device = ptx.Recorder()
    layers = [
        {"residual": {"body": ["batch_norm", "relu"]}},
        "gelu",
        {"conv": {"out_channels": 9, "kernel_size": 1}},
        "silu",
        {"max_pool": {"kernel_size": 2}},
        "flatten",
    ]
    mapping = {
        "input": [9, 12, 12],
        "network": layers,
        "loss": "cross_entropy" if loss == "shares" else loss,
        "optimizer": {optimizer: {"lr": 0.1}},
        "train": {"clip_grad_norm": 1.0},
    }
    x = np.zeros((4, 9, 12, 12), np.float32)
    targets = (
        np.zeros(4, np.int64) if loss in ("cross_entropy", "hinge") else np.zeros((4, 9 * 36), np.float32)
    )
    trainer = normcore.Trainer(normcore.Network.from_mapping(mapping, device=device))
    trainer.step(x, targets)
    faults = faults_of({(launch.kernel, launch.types): launch for launch in device.launches}.values())
    assert not faults, "\n".join(faults)


# What one thread loads and stores at once, by the dtype of the arrays.
WIDE = {"float32": ".v4.f32", "float64": ".v2.f64", "float16": ".v4.", "bfloat16": ".v4."}


@pytest.mark.parametrize("dtype", WIDE)
def test_chains_move_sixteen_bytes_at_once(dtype):
    """A chain of two stages and one of two inputs, forward and backward: wide accesses, nothing spilled."""
    chain = FusedChain((OPS["silu"].make(), OPS["elu"].make()))
    recorded = [
        *ptx.record(chain, [(4, 33)], dtype),
        *ptx.record(OPS["multiply"].make(), [(4, 33)] * 2, dtype),
    ]
    assert len(recorded) == 4
    for launch in recorded:
        for architecture in ptx.ARCHITECTURES:
            text = ptx.ptx(launch.kernel, launch.types, architecture)
            assert f"ld.global{WIDE[dtype]}" in text and f"st.global{WIDE[dtype]}" in text
            costs = ptx.resources(launch, architecture)
            assert not costs.faults and not costs.stack


# Normalizations, with shapes whose rows and planes are whole packs.
STREAMS = {
    "batch_norm": ((4, 16, 4, 8), {}),
    "layer_norm": ((16, 768), {}),
    "group_norm": ((4, 32, 8, 8), {"num_groups": 4}),
    "dynamic_tanh": ((64, 768), {}),
    "local_response_norm": ((4, 32, 8, 8), {}),
    "lp_norm": ((4, 16, 4, 8), {}),
    "decorrelated_batch_norm": ((4, 16, 4, 8), {}),
}
# Kernels that read x again, element by element, where float32 sums cannot be trusted; and local_response_norm's over
# channels last, whose windows begin anywhere.
RARE = {"finish_cuda", "forward_wide_cuda", "backward_wide_cuda"}
ELEMENTWISE = {"local_response_norm, channels_last"}
MORE_16 = {"dynamic_tanh": 168}  # registers where a thread holds eight elements, each with three sums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STREAMS)
def test_normalizations_move_sixteen_bytes_and_shuffle(name, dtype):
    """Kernels that read an activation load 16 bytes at once, sums go by shuffles, and nothing adds atomically."""
    shape, params = STREAMS[name]
    activation = ("array", str(array_dtype(dtype)), 1, "C")
    budget = REGISTERS[name] if dtype == "float32" else MORE_16.get(name, REGISTERS[name])
    faults = []
    for format in OPS[name].formats_on("cuda"):
        for launch in ptx.record(OPS[name].make(**params), [shape], dtype, format):
            if "transpose" in launch.name:
                continue  # the engine's, for a layer that is asked for the other format
            text = ptx.ptx(launch.kernel, launch.types, "sm_80")
            costs = ptx.resources(launch, "sm_80")
            where = f"{launch.name}, {format}"
            faults += [f"{where}: {f}" for f in costs.faults]
            if costs.stack:
                faults.append(f"{where}: keeps {costs.stack} bytes outside registers")
            if costs.registers > budget:
                faults.append(f"{where}: {costs.registers} registers")
            if re.search(r"\b(atom|red)\.", text):
                faults.append(f"{where}: adds atomically")
            if "sums" in launch.name and "shfl.sync" not in text:
                faults.append(f"{where}: no shuffles")
            wide = f"ld.global{WIDE[dtype]}" in text
            streams = launch.name not in RARE and f"{name}, {format}" not in ELEMENTWISE
            if launch.types[0] == activation and streams and not wide:
                faults.append(f"{where}: no 16 bytes at once")
    assert not faults, "\n".join(faults)


def test_double_arithmetic_is_counted():
    """What the check above must find: a float64 argument that turns float32 arithmetic double."""
    from types import SimpleNamespace

    from normcore.kernels import cu, cuda, variant

    @cuda
    def _scaled(x, factor):
        for i in range(cu.grid(1), x.size, cu.gridsize(1)):
            x[i] = x[i] * factor

    device = ptx.Recorder()
    t = SimpleNamespace(variant=variant("float32"), device=device)
    x = device.array(np.zeros(8), "float32")
    _scaled[t, 8](x, 0.1)
    _scaled[t, 8](x, np.float64(0.1))
    real, double = (ptx.resources(launch) for launch in device.launches)
    assert not real.faults
    assert double.double_ops > 0
    assert "float64 instructions" in double.faults[0]


def test_the_way_of_cuda_to_reduce_a_huge_angle_is_no_fault():
    import math

    @normcore.elementwise(source="none")
    class wave:
        """sin(x)"""

        def forward(x):
            return math.sin(x)

        def derivative(x, y):
            return math.cos(x)

    for launch in ptx.record(wave.make(), [(4, 33)]):
        assert "0d3BF921FB54442D19" in ptx.ptx(launch.kernel, launch.types, "sm_90")
        assert not ptx.resources(launch).faults
