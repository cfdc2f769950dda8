"""Pooling layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_pooling.fractional_max_pool import FractionalMaxPool
    from normcore_pooling.global_avg_pool import GlobalAvgPool
    from normcore_pooling.max_pool import MaxPool
    from normcore_pooling.mixed_pool import MixedPool
    from normcore_pooling.spatial_pyramid_pool import SpatialPyramidPool
    from normcore_pooling.stochastic_pool import StochasticPool

    return [GlobalAvgPool, MaxPool, FractionalMaxPool, MixedPool, SpatialPyramidPool, StochasticPool]
