"""Time each op's CUDA kernels against a device-to-device copy and, where it is there, against PyTorch.

    python benches/gpu_session.py --json gpu.json [--seconds 180] [--shape 32x96x55x55] [--ops relu,batch_norm]

One row an op, direction and memory format: seconds by the device's clock, the bytes that the direction must
move (each operand once), their rate, its share of what a copy reaches, and the host's seconds for a launch.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
from functools import partial

import numpy as np

import normcore
from normcore.devices import cuda
from normcore.registry import default
from normcore.testing.derive import samples_of

SHAPE = "32x96x55x55"  # AlexNet's first normalization
ROUNDS, WARM_UP = 5, 3
PEERS = {  # op: how PyTorch says it
    "relu": lambda torch: torch.nn.functional.relu,
    "gelu": lambda torch: torch.nn.functional.gelu,
    "silu": lambda torch: torch.nn.functional.silu,
    "tanh": lambda torch: torch.tanh,
    "sigmoid": lambda torch: torch.sigmoid,
    "dropout": lambda torch: torch.nn.functional.dropout,
    "batch_norm": lambda torch: lambda x: torch.nn.functional.batch_norm(x, None, None, training=True),
    "layer_norm": lambda torch: lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    "softmax": lambda torch: lambda x: torch.nn.functional.softmax(x, 1),
    "max_pool": lambda torch: lambda x: torch.nn.functional.max_pool2d(x, 3, 2),
    "global_avg_pool": lambda torch: lambda x: x.mean((2, 3), keepdim=True),
}
PARAMETERS = {"max_pool": {"kernel_size": 3, "stride": 2}}


def measured(device, call):
    """Seconds a call takes on the device: the median of rounds long enough for the clock."""
    for _ in range(WARM_UP):
        call()
    device.synchronize()
    once = max(device.measure(call, 3), 1e-6)
    repeats = int(min(200, max(3, 0.01 / once)))
    return statistics.median(device.measure(call, repeats) for _ in range(ROUNDS))


def host_seconds(device, call, repeats=100):
    """Seconds the host needs to launch a call, on arrays too small to matter."""
    for _ in range(5):
        call()
    device.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    seconds = time.perf_counter() - started
    device.synchronize()
    return seconds / repeats


def copy_rate(device, nbytes):
    """Bytes a second, read and written, of a copy of this size."""
    a, b = device.empty(nbytes), device.empty(nbytes)

    def call():
        b[...] = a

    return 2 * nbytes / measured(device, call)


def op_shapes(cls, shape):
    """The op and the shapes to time: the given one, or the first sample's with a batch of as many numbers."""
    sample = samples_of(cls)[0]
    params = PARAMETERS.get(cls.name, dict(sample.params))
    count = 1 if len(sample.input_shapes) == 1 else len(sample.input_shapes)
    if not sample.integers and sample.make is None and len(sample.input_shapes[0]) >= 2:
        try:
            op = cls.make(**params)
            shapes = [shape] * count
            op.plan(*(normcore.Tensor(s) for s in shapes))
            return op, shapes
        except normcore.NormcoreError:
            pass
    op = cls.make(**sample.params)
    scale = max(1, int(np.prod(shape)) // sum(int(np.prod(s)) for s in sample.input_shapes))
    return op, [(s[0] * scale, *s[1:]) for s in sample.input_shapes]


def op_rows(device, cls, shape, limit, torch):
    op, shapes = op_shapes(cls, shape)
    for format in cls.formats:
        layer = normcore.Layer(op, shapes, device, "float32", format)
        binding = layer._binding
        inputs = []
        for shape in shapes:
            values = np.random.default_rng(0).standard_normal(shape, np.float32)
            host = values if format == "channels_first" else np.moveaxis(values, 1, -1).copy()
            array = device.array(host, "float32")
            inputs.append(array if format == "channels_first" else _logical(array))
        y = layer.forward(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        size = sum(x.nbytes for x in inputs)
        yield row(
            op,
            "forward",
            format,
            shapes,
            measured(device, partial(layer.forward, *inputs)),
            size + y.nbytes,
            limit,
        )
        if not op.differentiable:
            continue
        dy = (
            y.copy()
            if format == "channels_first"
            else _logical(device.array(np.zeros(_physical(y)), "float32"))
        )
        layer.backward(dy)
        moved = dy.nbytes + size + ("x" in op.backward_needs) * size + ("y" in op.backward_needs) * y.nbytes
        yield row(op, "backward", format, shapes, measured(device, partial(layer.backward, dy)), moved, limit)
        assert layer._binding is binding
    if torch is not None and cls.name in PEERS:
        yield from peer_rows(device, cls.name, shapes[0], torch)
    small = normcore.Layer(op, [(2, *s[1:]) for s in shapes], device, "float32", cls.formats[0])
    x = [device.array(np.ones((2, *s[1:])), "float32") for s in shapes]
    yield {"op": op.name, "direction": "dispatch", "host_s": host_seconds(device, partial(small.forward, *x))}


def _logical(array):
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1)) if array.ndim > 2 else array


def _physical(y):
    return (y.shape[0], *y.shape[2:], y.shape[1]) if y.ndim > 2 else y.shape


def row(op, direction, format, shapes, seconds, nbytes, limit):
    return {
        "op": op.name,
        "direction": direction,
        "memory_format": format,
        "dtype": "float32",
        "device": "cuda",
        "shape": shapes if len(shapes) > 1 else shapes[0],
        "median_s": seconds,
        "gb_per_s": nbytes / seconds / 1e9,
        "share_of_limit": nbytes / seconds / limit,
    }


def peer_rows(device, name, shape, torch):
    """PyTorch's seconds for the same op, on its better memory format, by its own events."""
    function = PEERS[name](torch)
    for format in ("contiguous_format", "channels_last"):
        x = torch.randn(shape, device="cuda").to(memory_format=getattr(torch, format)).requires_grad_()
        y = function(x)
        dy = torch.randn_like(y)
        for direction, call in (
            ("forward", lambda x=x: function(x.detach())),
            ("backward", lambda x=x, y=y, dy=dy: torch.autograd.grad(y, x, dy, retain_graph=True)),
        ):
            yield {
                "op": name,
                "direction": direction,
                "peer": "torch",
                "memory_format": format,
                "median_s": _torch(torch, call),
            }


def _torch(torch, call):
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(20):
            call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000 / 20)
    return statistics.median(times)


def training_row(device):
    """Milliseconds of a training step of a small network, launches included."""
    layers = [{"residual": {"body": ["batch_norm", "relu"]}}, "gelu", {"dropout": 0.1}, "flatten"]
    mapping = {
        "input": [32, 28, 28],
        "network": layers,
        "loss": "cross_entropy",
        "optimizer": {"sgd": {"lr": 0.1}},
    }
    trainer = normcore.Trainer(normcore.Network.from_mapping(mapping, device=device))
    x, labels = np.random.default_rng(0).standard_normal((64, 32, 28, 28), np.float32), np.arange(64)
    x, labels = device.array(x, "float32"), device.array(labels, "int64")
    return {
        "op": "network",
        "direction": "step",
        "host_s": host_seconds(device, lambda: trainer.step(x, labels), 30),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", default="gpu.json")
    arguments.add_argument("--seconds", type=float, default=180, help="stop starting ops after this")
    arguments.add_argument("--shape", default=SHAPE)
    arguments.add_argument("--ops", default="")
    given = arguments.parse_args()
    reason = cuda.missing()
    if reason is not None:
        print(f"no CUDA here: {reason}", file=sys.stderr)
        return 2
    device = cuda.device()
    try:
        import torch

        torch = torch if torch.cuda.is_available() else None
    except ImportError:
        torch = None
    started = time.perf_counter()
    shape = tuple(map(int, given.shape.split("x")))
    limit = copy_rate(device, 4 * int(np.prod(shape)))
    machine = {
        "device": device.title,
        "copy_gb_per_s": limit / 1e9,
        "python": platform.python_version(),
        "torch": getattr(torch, "__version__", None),
    }
    print(machine)
    rows, failed, left_out = [], [], []
    ops = {
        s.name: s.component for s in default().all("op") if s.component.has_cuda() and not s.component.is_view
    }
    wanted = given.ops.split(",") if given.ops else list(ops)
    for name in sorted(wanted, key=lambda n: (n not in PEERS, n)):  # what has a peer first
        if time.perf_counter() - started > given.seconds:
            left_out.append(name)
            continue
        try:
            for found in op_rows(device, ops[name], shape, limit, torch):
                rows.append(found)
                share = f"{found['share_of_limit']:6.0%} of a copy" if "share_of_limit" in found else ""
                took = found.get("median_s", found.get("host_s"))
                where = found.get("peer", found.get("memory_format", ""))
                print(f"{name:24} {found['direction']:9} {where:18} {took * 1e6:10.1f} us {share}")
        except Exception as fault:
            failed.append(name)
            print(f"{name}: {fault}")
            traceback.print_exc(limit=-4)
    try:
        rows.append(training_row(device))
        print(f"training step: {rows[-1]['host_s'] * 1e3:.2f} ms")
    except Exception as fault:
        failed.append("network")
        print(f"network: {fault}")
    with open(given.json, "w") as out:
        json.dump({"machine": machine, "rows": rows, "failed": failed, "left_out": left_out}, out, indent=1)
    print(f"{len(rows)} rows, failed: {failed or 'none'}, left out for time: {left_out or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
