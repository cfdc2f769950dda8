"""Errors in units in the last place, and arguments that cover the whole line of floating-point numbers."""

import numpy as np


def float32_line(step: int, edges: tuple[float, ...] = ()) -> np.ndarray:
    """Every `step`-th of the 2^32 float32 bit patterns, and edges with their neighbours.

    Always among them, with both signs: zero, the smallest denormal, both sides of the smallest normal number,
    one, the largest number, infinity and NaN.
    """
    always = (0.0, 1.4e-45, 1.1754942e-38, 1.1754944e-38, 1.0, 3.4028235e38, np.inf, np.nan)
    patterns = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    around = np.array(edges, np.float32)
    ends = np.concatenate(
        [
            np.array(always, np.float32),
            around,
            np.nextafter(around, np.float32(0)),
            np.nextafter(around, np.float32(np.inf)),
        ]
    )
    return np.concatenate([patterns, ends, -ends])


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units in the last place of the exact value in y's dtype; 0 where they are the same.

    `exact` has a wider type than y. A value beyond the dtype's range counts as infinity; NaN against a number
    and infinity against a finite value count as infinitely wrong.
    """
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp) - info.nmant
        # Two factors: 2^-149 and its like are out of the range of some types' ldexp.
        error = np.ldexp(
            np.ldexp(np.abs(y.astype(exact.dtype) - exact), -exponent // 2), -exponent - (-exponent // 2)
        )
    error = np.where(np.isnan(error) | np.isinf(y), np.inf, error)
    same = (y == rounded) & (np.isinf(rounded) | (y == exact)) | (np.isnan(y) & np.isnan(exact))
    return np.where(same, 0.0, error)
