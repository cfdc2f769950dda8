"""group_norm and lp_pool once more, from scalar functions."""

import math

from normcore.templates import normalization, pooling
from normcore.testing.samples import ErrorSample, Sample


@normalization(over="groups", source="Wu and He 2018, arXiv:1803.08494")
class plain_group_norm:
    """(x - mean) / sqrt(variance + eps) over groups of channels, scaled and shifted.

    num_groups: into how many groups the channels fall. eps: added to the variance.
    """

    num_groups: int = 32
    eps: float = 1e-5

    def mean(x):
        return x

    def variance(x, mean):
        return (x - mean) ** 2

    def normalize(x, mean, variance, eps):
        return (x - mean) * (1.0 / math.sqrt(variance + eps))

    samples = (
        Sample("remainders", shape=(3, 6, 4, 7), params={"num_groups": 3}),
        Sample("features", shape=(9, 6), params={"num_groups": 2}),
    )
    error_samples = (ErrorSample("groups divide", {"num_groups": 3}, (2, 4, 5), "4 channels"),)


@pooling(source="Sermanet, Chintala and LeCun 2012, arXiv:1204.3968")
class plain_lp_pool:
    """(sum of |x|^p over the window)^(1/p).

    kernel_size, stride, padding, ceil_mode: the windows. p: of the norm.
    """

    p: float = 2.0

    def powers(x, p):
        return x * x if p == 2.0 else abs(x) ** p

    def finish(powers, p):
        root = math.sqrt(powers) if p == 2.0 else powers ** (1.0 / p)
        return root if powers > 0.0 else 0.0 * powers  # a NaN stays

    samples = (
        Sample("windows overlap", shape=(2, 5, 7, 6), params={"kernel_size": 3, "stride": 2}),
        Sample(
            "cut windows, a broken p",
            shape=(1, 3, 6, 5),
            params={"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "p": 2.5},
        ),
    )
    error_samples = (ErrorSample("too large", {"kernel_size": 5}, (2, 3, 4, 4), "4 elements"),)
