"""Pooling layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_pooling.adaptive_avg_pool import AdaptiveAvgPool
    from normcore_pooling.adaptive_max_pool import AdaptiveMaxPool
    from normcore_pooling.avg_pool import AvgPool
    from normcore_pooling.fractional_max_pool import FractionalMaxPool
    from normcore_pooling.global_avg_pool import GlobalAvgPool
    from normcore_pooling.global_lp_pool import GlobalLpPool
    from normcore_pooling.global_max_pool import GlobalMaxPool
    from normcore_pooling.lp_pool import LpPool
    from normcore_pooling.max_pool import MaxPool
    from normcore_pooling.max_unpool import MaxUnpool
    from normcore_pooling.min_pool import MinPool
    from normcore_pooling.mixed_pool import MixedPool
    from normcore_pooling.spatial_pyramid_pool import SpatialPyramidPool
    from normcore_pooling.stochastic_pool import StochasticPool

    return [
        AdaptiveAvgPool,
        AdaptiveMaxPool,
        AvgPool,
        FractionalMaxPool,
        GlobalAvgPool,
        GlobalLpPool,
        GlobalMaxPool,
        LpPool,
        MaxPool,
        MaxUnpool,
        MinPool,
        MixedPool,
        SpatialPyramidPool,
        StochasticPool,
    ]
