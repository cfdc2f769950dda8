"""Checks of an op's CUDA kernels without a GPU: run by the simulator, and compiled for real architectures.

The simulator is a setting of numba that must stand before its import, so it runs in a process of its own. On a GPU
the other checks run the kernels themselves (device="cuda").
"""

import importlib.util
import json
import os
import subprocess
import sys

from normcore.devices.cuda import simulating
from normcore.errors import PluginError
from normcore.op import Op
from normcore.testing import ptx
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Failed, Skipped

LARGEST = 1500  # elements of a sample's inputs: a simulated thread is slow
SECONDS = 300
NONE = "no CUDA kernels"


def simulated(cls: type[Op], device: str) -> str:
    """The CUDA kernels, run by numba's simulator, give what the CPU kernels give: values, gradients, state."""
    if cls.is_view or not cls.has_cuda():
        raise Skipped("a view has no kernels" if cls.is_view else NONE)
    if simulating():
        return _compared(cls)
    if importlib.util.find_spec("numba.cuda.simulator") is None:
        raise Skipped("this numba has no CUDA simulator")
    from normcore.registry import default

    try:
        found = default().get("op", cls.name)
    except PluginError:
        raise Skipped(
            "the simulator needs a process of its own, and the op is not registered there"
        ) from None
    if found.component is not cls:
        raise Skipped(f"another op is registered as {cls.name!r}")
    file = [found.plugin.origin] if found.plugin.digest else []
    command = [sys.executable, "-c", f"from {__name__} import main; main()", cls.name, *file]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"the simulator ended with status {done.returncode}: {done.stderr[-600:]}") from None
    if answer["failed"]:
        raise Failed(answer["failed"])
    return str(answer["passed"])


def compiled(cls: type[Op], device: str) -> str:
    """The CUDA kernels compile, spill no registers, and stay in their precision (PTX; no GPU needed)."""
    if cls.is_view or not cls.has_cuda():
        raise Skipped("a view has no kernels" if cls.is_view else NONE)
    absent = ptx.missing()
    if absent is not None:
        raise Skipped(absent)
    sample = samples_of(cls)[0]
    recorded = ptx.record(cls.make(**sample.params), sample.input_shapes, training=sample.training)
    for launch in recorded:
        costs = ptx.resources(launch)
        if costs.faults:
            raise Failed(f"{costs.label}: {costs.kernel} on {costs.architecture} {costs.faults[0]}")
    return f"{len(recorded)} launches"


def _compared(cls: type[Op]) -> str:
    from normcore.testing.against_cpu import comparisons

    count = 0
    for comparison in comparisons(cls, LARGEST):
        try:
            comparison.run(uncompiled=True)
        except Failed as fault:
            raise Failed(f"CUDA (simulated) against CPU, {comparison.label}: {fault}") from None
        except Exception as fault:
            raise Failed(f"{comparison.label}: {type(fault).__name__}: {fault}") from fault
        count += 1
    return f"{count} comparisons with the CPU"


def main() -> None:
    """In the simulating process: the op's name, and the plugin file that brings it."""
    from normcore.registry import default

    name, *files = sys.argv[1:]
    for file in files:
        default().load_file(file)
    answer = {"failed": "", "passed": ""}
    try:
        answer["passed"] = _compared(default().get("op", name).component)  # type: ignore[arg-type]
    except Failed as fault:
        answer["failed"] = str(fault)
    print(json.dumps(answer))
