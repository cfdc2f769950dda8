"""Fits the polynomials of normcore/kernels/scalar_math.py and draws the functions' errors.

    python benches/fit_scalar_math.py              prints every coefficient, ready to paste
    python benches/fit_scalar_math.py tanh_f32     prints one fit
    python benches/fit_scalar_math.py --plot       measures the errors, draws results/scalar_math_error.png

Every fit is a minimax polynomial in one variable v: it minimizes max |weight(v) * (P(v) - target(v))| by
Remez's exchange on a dense Chebyshev grid, in 50 digits. Coefficients are then rounded to the kernel's type
one after the other, lowest power first (it matters most), and the remaining ones are fitted again after each,
so that they take up the rounding error of those before. Printed with each fit: its largest weighted error in
bits, with exact and with rounded coefficients. A kernel's own rounding errors come on top; --plot shows the
sum.

Needs mpmath (and matplotlib for --plot); neither is needed to run normcore.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import cos, erf, erfc, exp, expm1, findroot, lu_solve, matrix, mp, mpf, pi, sin, sqrt, tanh
from mpmath import log1p as mp_log1p

mp.dps = 50
LN2_HALF = mpf("0.3475")  # half of ln 2, and what rounding the quotient may add
ERFC_MIDDLE = (
    mpf(85) / 256
)  # erfc's variable is 1 / (x + 1) - 85/256: centred, so that its terms do not grow and
#                                cancel; at 85/256 the constant coefficient is a float32 to within 2^-29
TAIL_MIDDLE = mpf("2.53")  # erf's tail runs from 1.15 to 3.92, where erf rounds to 1


@dataclass(frozen=True)
class Fit:
    """One polynomial: what it approximates, where, and which error counts."""

    target: Callable[[mpf], mpf]
    weight: Callable[[mpf], mpf]
    low: object
    high: object
    degree: int
    dtype: type
    meaning: str
    first: float | None = None  # a fixed lowest coefficient


def _exp_target(r):
    return (expm1(r) - r) / r**2


def _log_target(f):
    return (mp_log1p(f) - f + f**2 / 2) / f**3


def _log_ratio_target(z):
    s = sqrt(z)
    return (mp_log1p(2 * s / (1 - s)) - 2 * s) / (s * z)


def _tanh_target(v):
    return (tanh(sqrt(v)) / sqrt(v) - 1) / v


def _scaled_erfc(v):
    w = v + ERFC_MIDDLE
    t = 1 / w - 1
    return exp(t * t) * erfc(t) / w


def _normal_tail(t):
    return erfc(t / sqrt(2)) / 2


def _normal_slope(t):
    """Q(t) - t phi(t), the slope of -t Q(t) with its sign turned, and where it is zero."""
    return _normal_tail(t) - t * exp(-t * t / 2) / sqrt(2 * pi)


SLOPE_ZERO = findroot(_normal_slope, mpf("0.75"))


def _relative(function):
    return lambda v: 1 / function(v)


EXPM1 = (_exp_target, lambda r: r**2 / expm1(r), -LN2_HALF, LN2_HALF)
FITS = {
    "exp_f32": Fit(
        _exp_target, lambda r: r**2 / exp(r), mpf("-0.694"), mpf("0.694"), 5, np.float32,
        "(exp(r) - 1 - r) / r^2, |r| <= ln(2); error relative to exp(r)",
    ),
    "expm1_f32": Fit(*EXPM1, 4, np.float32, "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2; relative to expm1(r)"),
    "exp_f64": Fit(*EXPM1, 10, np.float64, "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2; relative to expm1(r)"),
    "log_f32": Fit(
        _log_target, lambda f: f**3 / mp_log1p(f), mpf(-1) / 3, mpf(1) / 3, 7, np.float32,
        "(log(1 + f) - f + f^2/2) / f^3, |f| <= 1/3; error relative to log(1 + f)",
    ),
    "log_f64": Fit(
        _log_ratio_target, lambda z: z, mpf(0), mpf("0.0401"), 7, np.float64,
        "(log((1 + s)/(1 - s)) - 2 s) / s^3 in z = s^2, |s| <= 0.2; error relative to the logarithm",
    ),
    "tanh_f64": Fit(
        _tanh_target, lambda v: v, mpf(0), mpf("0.36"), 10, np.float64,
        "(tanh(x)/x - 1) / x^2 in v = x^2, |x| <= 0.6; error relative to tanh(x)",
    ),
    "erf_f32": Fit(
        lambda v: erf(sqrt(v)) / sqrt(v) - 1, lambda v: sqrt(v) / erf(sqrt(v)),
        mpf(0), mpf("1.33"), 7, np.float32,
        "erf(x)/x - 1 in v = x^2, |x| <= 1.15; error relative to erf(x)",
    ),
    "erf_tail_f32": Fit(
        lambda v: erfc(v + TAIL_MIDDLE) ** 0.25, lambda v: 4 * erfc(v + TAIL_MIDDLE) ** 0.75,
        mpf("-1.381"), mpf("1.40"), 8, np.float32,
        "erfc(x)^(1/4) in v = x - 2.53, 1.15 <= x <= 3.93; absolute error of erfc(x)",
    ),
    "erfc_f32": Fit(
        _scaled_erfc, _relative(_scaled_erfc),
        1 / mpf("11.07") - ERFC_MIDDLE, 1 / mpf("1.4765") - ERFC_MIDDLE, 10, np.float32,
        "exp(x^2) erfc(x) / w in v = w - 85/256, w = 1/(x + 1), 0.4765 <= x <= 10.07; relative error",
    ),
    "normal_tail_f32": Fit(
        lambda t: _normal_tail(t) ** 0.25, lambda t: 4 * _normal_tail(t) ** 0.75 * (t + 1),
        mpf(0), mpf("5.8"), 11, np.float32,
        "Q(t)^(1/4), Q(t) = erfc(t/sqrt(2))/2, 0 <= t <= 5.8; absolute error of (1 + t) Q(t)",
    ),
    "normal_slope_f32": Fit(
        lambda t: (_normal_slope(t) / (SLOPE_ZERO - t)) ** 0.25,
        lambda t: 4 * (_normal_slope(t) / (SLOPE_ZERO - t)) ** 0.75 * (SLOPE_ZERO - t),
        mpf(0), mpf("6.0"), 10, np.float32,
        "((Q(t) - t phi(t)) / (0.7518 - t))^(1/4), phi = -Q', 0 <= t <= 6; absolute error of Q(t) - t phi(t)",
    ),
    "log1p_unit_f32": Fit(
        lambda u: mp_log1p(u) / u, lambda u: u / mp_log1p(u), mpf(0), mpf(1), 9, np.float32,
        "log(1 + u) / u, 0 <= u <= 1; relative error",
    ),
    "sin_f32": Fit(
        lambda v: (sin(sqrt(v)) / sqrt(v) - 1) / v, lambda v: v, mpf(0), mpf("0.6171"), 2, np.float32,
        "(sin(r)/r - 1) / r^2 in v = r^2, |r| <= pi/4; error relative to r",
    ),
    "cos_f32": Fit(
        lambda v: (cos(sqrt(v)) - 1 + v / 2) / v**2, lambda v: v**2, mpf(0), mpf("0.6171"), 2, np.float32,
        "(cos(r) - 1 + r^2/2) / r^4 in v = r^2, |r| <= pi/4; absolute error",
    ),
}  # fmt: skip


class Grid:
    """Chebyshev points of an interval with target and weight evaluated once."""

    def __init__(self, fit: Fit):
        self.count = 60 * (fit.degree + 2)
        middle, half = (fit.high + fit.low) / 2, (fit.high - fit.low) / 2
        self.points = [middle - half * cos(pi * (2 * i + 1) / (2 * self.count)) for i in range(self.count)]
        self.values = [fit.target(p) for p in self.points]
        self.weights = [fit.weight(p) for p in self.points]


def horner(coefficients, v):
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * v + c
    return total


def rest(grid, fixed):
    """What is left to approximate above the fixed powers, (target - fixed) / v^k, and its weight |w v^k|.

    Dividing by v^k keeps the remaining powers 0, 1, 2, ...: without the constant they would be no Chebyshev
    system on an interval around zero, and the error of a best fit need not alternate.
    """
    k = len(fixed)
    return [
        ((value - horner(fixed, p)) / p**k, abs(w * p**k))
        for p, value, w in zip(grid.points, grid.values, grid.weights, strict=True)
    ]


def remez(grid, fixed, count):
    """The `count` highest coefficients after the given lowest ones, and the largest weighted error."""
    left = rest(grid, fixed)
    if count == 0:
        return [], max(abs(target) * w for target, w in left)
    reference = [round((grid.count - 1) * (1 - float(cos(pi * i / count))) / 2) for i in range(count + 1)]
    best: tuple = ([], mpf("inf"))
    for _ in range(25):
        system, right = matrix(count + 1), matrix(count + 1, 1)
        for row, i in enumerate(reference):
            p, (target, w) = grid.points[i], left[i]
            for column in range(count):
                system[row, column] = w * p**column
            system[row, count] = (-1) ** row
            right[row] = w * target
        solution = lu_solve(system, right)
        free, level = [solution[i] for i in range(count)], abs(solution[count])
        found = [w * (horner(free, p) - target) for p, (target, w) in zip(grid.points, left, strict=True)]
        largest = max(abs(e) for e in found)
        if largest < best[1]:
            best = (free, largest)
        if largest <= level * mpf("1.0001"):
            break
        reference = exchange(found, count + 1)
    return best


def exchange(found, wanted):
    """Indices of `wanted` extremes of alternating sign, the largest ones."""
    peaks: list[int] = []
    for i, e in enumerate(found):
        if peaks and (found[peaks[-1]] > 0) == (e > 0):
            if abs(e) > abs(found[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    while len(peaks) > wanted:
        if len(peaks) == wanted + 1:
            peaks.pop(0 if abs(found[peaks[0]]) < abs(found[peaks[-1]]) else -1)
            continue
        weakest = min(
            range(len(peaks) - 1), key=lambda i: max(abs(found[peaks[i]]), abs(found[peaks[i + 1]]))
        )
        del peaks[weakest : weakest + 2]
    if len(peaks) < wanted:  # too flat to alternate: spread the missing ones evenly
        peaks = sorted({*peaks, *(round(i) for i in np.linspace(0, len(found) - 1, wanted))})[:wanted]
    return peaks


def rounded(fit: Fit):
    """Coefficients in the kernel's type, lowest power first; errors with exact and with rounded ones."""
    grid = Grid(fit)
    fixed: list[mpf] = []
    _, exact = remez(grid, fixed, fit.degree + 1)
    while len(fixed) <= fit.degree:
        free, _ = remez(grid, fixed, fit.degree + 1 - len(fixed))
        fixed.append(mpf(float(fit.dtype(float(free[0])))))
    _, final = remez(grid, fixed, 0)
    return [fit.dtype(float(c)) for c in fixed], exact, final


def show(name: str) -> None:
    fit = FITS[name]
    coefficients, exact, final = rounded(fit)
    print(f"# {fit.meaning}")
    before, after = float(mp.log(exact, 2)), float(mp.log(final, 2))
    print(f"# largest error 2^{before:.1f}, with rounded coefficients 2^{after:.1f}")
    stem, suffix = name.upper().rsplit("_", 1)
    for power, c in enumerate(coefficients):
        print(f"{stem}_C{power}_{suffix} = np.{fit.dtype.__name__}({c.item()!r})")
    print()


def main(arguments: list[str]) -> None:
    if "--plot" in arguments:
        from plot_scalar_math import plot

        plot()
        return
    for name in arguments or FITS:
        show(name)


if __name__ == "__main__":
    main(sys.argv[1:])
