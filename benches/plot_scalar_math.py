"""Measures and draws the errors of the float32 scalar mathematics: fit_scalar_math.py --plot."""

import math
import pathlib
import types

import numpy as np


def measured(name: str, step: int):
    """Arguments, and the error in ulp of math.<name> in a float32 kernel, for every `step`-th float32."""
    from normcore.kernels import variant
    from normcore.kernels.function import Function
    from normcore.kernels.kernel import Kernel
    from normcore.testing.ulps import float32_line, ulps

    text = f"def {name}_line(x, y):\n    for i in range(x.size):\n        y[i] = math.{name}(x[i])\n"
    kernel = Kernel(Function(f"{name}_line", text, {"math": math}))
    x = float32_line(step)
    y = np.empty_like(x)
    kernel[types.SimpleNamespace(variant=variant("float32", parallel=False))](x, y)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        if name in ("erf", "erfc"):
            exact = np.fromiter(map(getattr(math, name), wide.tolist()), np.float64, x.size)
        else:
            exact = getattr(np, name)(wide)
    kept = np.isfinite(x)
    return x[kept], ulps(y[kept], exact[kept])


def plot(step: int = 509) -> None:
    """One panel per function: the largest error in each of 1,000 slices of the float32 line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from normcore.kernels.scalar_math import CPU_MATH

    names = list(CPU_MATH["float32"])
    figure, axes = plt.subplots(3, 3, figsize=(15, 10), sharey=True, layout="constrained")
    for name, axis in zip(names, axes.flat, strict=True):
        x, error = measured(name, step)
        # Position on the line of floats: the bit pattern, negative numbers to the left.
        place = x.view(np.int32).astype(np.int64)
        place = np.where(place < 0, -(place & 0x7FFFFFFF), place)
        slices = (place - place.min()) * 1000 // (place.max() - place.min() + 1)
        largest, at = np.zeros(1000), np.zeros(1000)
        np.maximum.at(largest, slices, error)
        at[slices] = place
        axis.plot(at, largest, ".", markersize=3)
        ticks = [s * 10.0**e for s in (-1, 1) for e in (-20, -2, 2, 20, 38)]
        bits = [int(np.float32(abs(t)).view(np.int32)) * (1 if t > 0 else -1) for t in ticks]
        axis.set_xticks(bits, [f"{t:.0e}" for t in ticks], rotation=60, fontsize=7)
        axis.axhline(2.0, color="black", linewidth=0.8)
        axis.set_title(f"{name}: largest {error.max():.2f} ulp at {x[error.argmax()]:.6g}")
        axis.set_xlabel("x (evenly spaced bit patterns)")
        axis.set_ylabel("error, ulp")
        axis.set_ylim(0, 2.2)
        print(f"{name}: {error.max():.3f} ulp at {x[error.argmax()]!r}")
    figure.suptitle(
        "float32 scalar mathematics: largest error in each of 1,000 slices of all floats; the bar is 2 ulp"
    )
    path = pathlib.Path(__file__).parent / "results" / "scalar_math_error.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)
