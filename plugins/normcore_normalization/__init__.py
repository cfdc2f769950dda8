"""Normalization layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_normalization.batch_norm import BatchNorm
    from normcore_normalization.layer_norm import LayerNorm
    from normcore_normalization.local_response_norm import LocalResponseNorm
    from normcore_normalization.rms_norm import RmsNorm

    return [BatchNorm, LayerNorm, RmsNorm, LocalResponseNorm]
