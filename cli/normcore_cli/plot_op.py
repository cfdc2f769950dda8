"""Drawing an elementwise op: its value and its derivative, from its own kernels' functions."""

from typing import Any

import numpy as np

import normcore
from normcore.errors import UsageError
from normcore.kernels import uncompiled
from normcore.testing.derive import samples_of
from normcore_cli import drawing

POINTS = 2401
WIDEST, NARROWEST = 8.0, 3.0  # half the drawn interval
STEEP = 25.0  # a slope between neighbouring points that can only be a jump: the line is broken there
VALUE, DERIVATIVE = "#1f5fa8", "#d1701f"


def plot(op: Any, path: str) -> str:
    """Draw the op class into a file; returns what was drawn, in words. Raises UsageError."""
    target = drawing.target("--plot", path)
    if not (op.is_elementwise and op.inputs == ("x",)):
        raise UsageError(
            f"--plot: {op.name} is no function of one number, only elementwise ops of one input can be drawn; "
            f"`normcore ops show {op.name}` prints its formulas"
        )
    figure = drawing.figure("--plot", 6.4, 4.4)
    parameters = {} if all(not p.required for p in op.parameters()) else dict(samples_of(op)[0].params)
    x, y, slope = _curves(op, parameters)
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#888888", linewidth=0.7)
    axes.axvline(0.0, color="#888888", linewidth=0.7)
    axes.plot(x, _broken(x, y), color=VALUE, linewidth=2.0, label="value y(x)")
    axes.plot(x, _broken(x, slope), color=DERIVATIVE, linewidth=1.6, linestyle="--", label="derivative dy/dx")
    reach = 1.1 * x[-1]
    both = np.clip(np.concatenate([y, slope]), -reach, reach)
    margin = 0.06 * (both.max() - both.min())
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(both.min() - margin, both.max() + margin)
    axes.set_xlabel("x")
    given = {**op.make(**parameters).hyperparameters()}
    said = ", ".join(
        f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in given.items()
    )
    axes.set_title(f"{op.name} ({said})" if said else op.name)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.legend(loc="best", frameon=False)
    drawing.save("--plot", figure, target)
    return f"{op.name}, value and derivative for x from {x[0]:g} to {x[-1]:g}"


def _curves(op: Any, parameters: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y(x) and dy/dx on an interval that ends a little beyond where the derivative still changes."""
    x = np.linspace(-WIDEST, WIDEST, POINTS)
    _, slope = _values(op, parameters, x)
    finite = np.clip(slope, -5.0, 5.0)
    left, right = finite[0], finite[-1]
    settled = np.where(x < 0, np.abs(finite - left), np.abs(finite - right)) < 0.02 * (np.ptp(finite) or 1.0)
    reach = np.abs(x[~settled]).max() if not settled.all() else 0.0
    reach = float(np.ceil(min(WIDEST, max(NARROWEST, 1.3 * reach))))
    x = np.linspace(-reach, reach, POINTS)
    return (x, *_values(op, parameters, x))


def _values(op: Any, parameters: dict[str, Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with uncompiled(), np.errstate(all="ignore"):
        layer = normcore.layer(op.name, input_shape=(1, x.size), dtype="float64", **parameters)
        y = layer.forward(x[None]).copy()[0]
        return y, layer.backward(np.ones((1, x.size))).copy()[0]


def _broken(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y with NaN behind each jump, so that no upright line joins its ends."""
    y = y.copy()
    jumps = np.flatnonzero(np.abs(np.diff(y)) > STEEP * (x[1] - x[0]))
    y[jumps] = np.nan
    return y
