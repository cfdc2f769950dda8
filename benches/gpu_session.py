"""On a GPU: each op beside a device-to-device copy and, where it is there, PyTorch; training steps of the examples.

    python benches/gpu_session.py --json gpu.json [--seconds 180] [--shape 32x96x55x55] [--ops relu,batch_norm]

The core is that of `normcore bench`: each kernel is checked first, rounds are interleaved and timed by the device's
events. Ops that name their benchmarks or their counterpart in torch come first; what the time does not suffice for is
listed. The JSON has the form of benches/results/*.json, so make_tables.py makes tables of it.
"""

import argparse
import json
import pathlib
import sys
import time
import traceback

import numpy as np

import normcore
from normcore.devices import cuda
from normcore.measuring import machine
from normcore.measuring.bench import Bench, Settings
from normcore.measuring.cases import parse_shape
from normcore.measuring.run import plan
from normcore.measuring.timer import interleave
from normcore.registry import default

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SMALL, LARGE = 32, 128  # batches of the examples: of photographs, of small images


class Session:
    """What was found, and when to stop starting more."""

    def __init__(self, seconds):
        self.stop = time.perf_counter() + seconds
        self.rows, self.other, self.failed, self.left_out = [], {}, [], []

    def out_of_time(self, name):
        late = time.perf_counter() > self.stop
        if late:
            self.left_out.append(name)
        return late

    def attempt(self, name, work):
        """Run it; a failure is noted and the session goes on."""
        try:
            work()
        except Exception as fault:
            self.failed.append(name)
            print(f"{name}: {type(fault).__name__}: {fault}")
            traceback.print_exc(limit=-4, file=sys.stdout)


def torch_or_none():
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def time_ops(session, bench, names, shapes):
    ops = [r.component for r in default().all("op") if r.component.has_cuda()]
    if names:
        ops = [default().get("op", name).component for name in names]
    ops.sort(key=lambda c: (not c.benchmarks, not c.has_torch(), c.name))
    cases, left_out = plan(ops, shapes, wanted_devices=("cuda",), strict=False)
    session.left_out += left_out
    for case in cases:
        name = f"{case.op.name} {case.shape_text} {case.memory_format}"
        if not session.out_of_time(name):
            session.attempt(name, lambda case=case, name=name: time_op(session, bench, case, name))


def time_op(session, bench, case, name):
    for row in bench.rows(case):
        row["shape_text"], row["reason"] = case.shape_text, case.sample.reason
        session.rows.append(row)
        if row["correct"] is not True:
            session.failed.append(f"{name} {row['direction']}")
            print(f"{name:50} {row['direction']:8} WRONG: {row['detail']}")
            continue
        ratio = f"torch {row['torch_ratio']:.2f}" if row.get("torch_ratio") else ""
        share = f"{row['share_of_limit']:5.0%} of a copy" if row["bound_by"] == "bytes" else "arithmetic"
        times = f"{row['median_s'] * 1e6:9.1f} us {row['gb_per_s']:7.0f} GB/s"
        print(f"{name:50} {row['direction']:8} {times} {share} {ratio}", flush=True)


def time_example(session, device, example):
    """A training step, from arrays on the device to the loss on the host."""
    net = normcore.Network.from_yaml(example, device=device)
    trainer = normcore.Trainer(net)
    batch = min(net.declared_batch or LARGE, SMALL if net.sample_shape[-1] > 64 else LARGE)
    rng = np.random.default_rng(0)
    x = device.array(rng.standard_normal((batch, *net.sample_shape), np.float32), "float32")
    targets = device.array(rng.integers(0, 2, batch), "int64")
    losses = [trainer.step(x, targets) for _ in range(3)]
    if not np.isfinite(losses).all():
        raise ValueError(f"the losses of the first steps are {losses}")
    timing = interleave({"step": lambda: trainer.step(x, targets)}, rounds=11, seconds=2)
    low, high = timing.interval("step")
    step = timing.median("step")
    name = f"step of {example.name} ({device.name})"
    session.other[name] = {
        "batch": batch, "step_s": step, "interval_s": [low, high], "images_per_second": batch / step
    }  # fmt: skip
    print(f"{name:50} {step * 1e3:9.2f} ms  {batch / step:10,.0f} images/s", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", default="gpu.json")
    arguments.add_argument("--seconds", type=float, default=180, help="stop starting anything new after this")
    arguments.add_argument("--shape", default="", help="instead of the ops' own shapes")
    arguments.add_argument("--ops", default="", help="names joined by commas; every op when left out")
    arguments.add_argument("--no-examples", action="store_true", help="leave out the training steps")
    given = arguments.parse_args()
    reason = cuda.missing()
    if reason is not None:
        print(f"no CUDA here: {reason}", file=sys.stderr)
        return 2
    device = cuda.device()
    session = Session(given.seconds)
    settings = Settings(seconds=0.3, rounds=9, torch=torch_or_none(), check_seconds=0.2)
    bench = Bench(settings)
    print(machine.describe([device]), flush=True)
    # The examples first: few, and what users wait for.
    for example in () if given.no_examples else sorted(EXAMPLES.glob("*.yaml")):
        if not session.out_of_time(example.name):
            session.attempt(example.name, lambda example=example: time_example(session, device, example))
    names = [name for name in given.ops.split(",") if name]
    time_ops(session, bench, names, [parse_shape(given.shape)] if given.shape else [])
    about = machine.describe([device])
    about["limits"] = bench.limits()
    about["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = {
        "machine": about, "rows": session.rows, "other": session.other, "failed": session.failed,
        "left_out": session.left_out,
    }  # fmt: skip
    with open(given.json, "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1, default=str)
    print(f"{len(session.rows)} rows, failed: {session.failed or 'none'}")
    print(f"left out: {session.left_out or 'nothing'}")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
