"""What the first call of a kernel costs: compiled anew, and loaded from the disk cache.

Both are measured in processes of their own, the first with an empty cache folder, the second with what the first
left there: `python -m normcore.measuring.first_call` reads cases as JSON from standard input and prints a line for
each with the seconds of its first forward and its first backward. A small kernel goes before, so that what a process
pays once (Numba's and LLVM's start, the threads') is in nobody's number.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from normcore.measuring.cases import BenchCase

TIMEOUT = 600.0
Seconds = dict[str, float]  # by direction


def measure(cases: Sequence[BenchCase]) -> list[tuple[Seconds, Seconds]]:
    """(compiled, loaded) for each case; empty where the op cannot be made in another process."""
    if not cases:
        return []
    text = json.dumps([_as_dict(case) for case in cases])
    with tempfile.TemporaryDirectory(prefix="normcore-bench-") as folder:
        compiled, loaded = _child(text, folder), _child(text, folder)
    return list(zip(compiled, loaded, strict=True))


def _as_dict(case: BenchCase) -> dict[str, Any]:
    return {
        "op": case.op.name,
        "parameters": {f.name: getattr(case.op, f.name) for f in dataclasses.fields(case.op)},  # type: ignore[arg-type]
        "shapes": case.shapes,
        "dtype": case.dtype,
        "memory_format": case.memory_format,
        "device": case.device,
        "training": case.training,
        "special": case.sample.make is not None,
        "plugins": case.plugins,
    }


def _child(text: str, folder: str) -> list[Seconds]:
    environment = {**os.environ, "NORMCORE_CACHE_DIR": folder}
    command = [sys.executable, "-m", "normcore.measuring.first_call"]
    done = subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"measuring first calls failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    """The child: a line of JSON for each case on standard input."""
    from normcore.devices import device as devices
    from normcore.measuring.limits import copier

    given = json.load(sys.stdin)
    for name in sorted({case["device"] for case in given}):
        copier(devices.get(name), 1 << 20)()
    for case in given:
        print(json.dumps(_first_calls(case)), flush=True)


def _first_calls(case: dict[str, Any]) -> Seconds:
    import numpy as np

    from normcore.bound_layer import Layer
    from normcore.errors import NormcoreError
    from normcore.layout import logical_view, physical_shape
    from normcore.registry import default

    if case["special"]:
        return {}
    try:
        for file in case["plugins"]:
            default().load_file(file)
        op = default().get("op", case["op"]).component.make(**case["parameters"])
        layer = Layer(op, case["shapes"], case["device"], case["dtype"], case["memory_format"])
        binding, format = layer._binding, layer.memory_format

        def ones(tensor: Any) -> Any:
            values = np.ones(physical_shape(tensor.shape, format), tensor.dtype)
            return logical_view(layer.device.array(values, tensor.dtype), format)

        inputs = [ones(x) for x in binding.inputs]
        found = {"forward": _seconds(layer, lambda: layer.forward(*inputs, training=case["training"]))}
        if binding.differentiable:
            dy = ones(next(iter(binding.outputs.values())))
            found["backward"] = _seconds(layer, lambda: layer.backward(dy))
        return found
    except NormcoreError:  # an op that only the parent knows
        return {}


def _seconds(layer: Any, call: Any) -> float:
    started = time.perf_counter()
    call()
    layer.device.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
