"""The same case on the CPU and on the GPU: who wins, and from which size on."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SAME_CASE = ("op", "parameters", "direction", "dtype", "shape")


def compare(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each case on both devices: cpu_s, cuda_s (each device's best memory format), ratio and ratio_with_copies.

    A ratio is the CPU's time over the GPU's. The copies are those of the inputs to the GPU and of the output back.
    """
    best: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("median_s"):
            of = best.setdefault(json.dumps([row[k] for k in SAME_CASE], sort_keys=True), {})
            if row["device"] not in of or row["median_s"] < of[row["device"]]["median_s"]:
                of[row["device"]] = row
    found = []
    for of in best.values():
        if "cpu" in of and "cuda" in of:
            cpu, cuda = of["cpu"], of["cuda"]
            copies = cuda.get("to_device_s", 0.0) + cuda.get("to_host_s", 0.0)
            found.append(
                {
                    **{k: cuda[k] for k in SAME_CASE},
                    "elements": cuda["elements"],
                    "cpu_s": cpu["median_s"],
                    "cuda_s": cuda["median_s"],
                    "copies_s": copies,
                    "ratio": cpu["median_s"] / cuda["median_s"],
                    "ratio_with_copies": cpu["median_s"] / (cuda["median_s"] + copies),
                }
            )
    return found


def crossing(sizes: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The size from which the ratio stays above 1, between measured ones by a line in logarithms; None for never."""
    points = sorted(zip(sizes, ratios, strict=True))
    if not points or points[-1][1] <= 1:
        return None
    for (small, under), (large, over) in zip(points[-2::-1], points[:0:-1], strict=True):
        if under <= 1:
            part = -math.log(under) / (math.log(over) - math.log(under))
            return float(small * (large / small) ** part)
    return float(points[0][0])
