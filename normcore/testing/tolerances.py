"""Every bound of the conformance suite, with its reason. All are relative to the largest element compared.

A sample may widen one for itself (Sample.rtol32 and its kin); the reason then stands beside the sample.
"""

import numpy as np

from normcore.testing.outcome import Failed

# float64 kernel against the reference: two algebras, sums of a few hundred terms, 1e-16 each
VALUE = 1e-10
# float32 kernel against the float64 one on the same numbers: sums in blocks keep this a few ulp (6e-8)
VALUE_32 = 1e-5
# 16-bit storage against float32: the output is rounded (half an ulp), and a gradient is too, and the one it came from
STORED_16 = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
# gradients in float32: one more reduction over products, and differences of like numbers in normalizations
GRADIENT_32 = 1e-4
# central differences in float64 with step 2^-17: step^2 * third derivative / 6 is near 1e-11, rounding 1e-11
GRADIENT = 1e-6
# the same sums in another memory order, float32
FORMAT = 2e-5


def compare(what: str, got: np.ndarray, expected: np.ndarray, rtol: float) -> float:
    """The error relative to the largest expected element. Raises Failed when it exceeds rtol.

    NaN must meet NaN and an infinity the same infinity.
    """
    if got.shape != expected.shape:
        raise Failed(f"{what}: shape {got.shape}, expected {expected.shape}")
    if not got.size:
        return 0.0
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    nan = np.isnan(got) != np.isnan(expected)
    if nan.any():
        where = _first(nan)
        raise Failed(
            f"{what}: {got[where]} at {where}, expected {expected[where]} ({int(nan.sum())} such elements)"
        )
    finite = np.isfinite(expected)
    wrong = ~finite & ~np.isnan(expected) & (got != expected)
    if wrong.any():
        where = _first(wrong)
        raise Failed(f"{what}: {got[where]} at {where}, expected {expected[where]}")
    if not finite.any():
        return 0.0
    scale = float(np.max(np.abs(expected[finite]))) or 1.0
    error = np.where(finite, np.abs(np.where(finite, got, 0) - np.where(finite, expected, 0)), 0) / scale
    largest = float(error.max())
    if not largest <= rtol:
        where = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
        raise Failed(
            f"{what}: {float(got[where])!r} at {where}, expected {float(expected[where])!r}: "
            f"error {largest:.1e} of the largest element, the bound is {rtol:.0e}"
        )
    return largest


def same_bits(what: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Raises Failed unless both arrays hold the same bytes (a NaN equals the same NaN)."""
    if got.shape != expected.shape:
        raise Failed(f"{what}: shape {got.shape}, expected {expected.shape}")
    different = (got != expected) & ~((got != got) & (expected != expected))
    if different.any():
        where = _first(different)
        count = int(different.sum())
        raise Failed(
            f"{what}: {float(got[where])!r} at {where}, expected {float(expected[where])!r}; {count} differ"
        )


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
