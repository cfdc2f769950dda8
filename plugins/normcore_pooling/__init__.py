"""Pooling layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_pooling.global_avg_pool import GlobalAvgPool
    from normcore_pooling.max_pool import MaxPool

    return [GlobalAvgPool, MaxPool]
