"""Normalization layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_normalization.batch_norm import BatchNorm

    return [BatchNorm]
