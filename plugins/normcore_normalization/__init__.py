"""Normalization layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_normalization.batch_norm import BatchNorm
    from normcore_normalization.batch_renorm import BatchRenorm
    from normcore_normalization.decorrelated_batch_norm import DecorrelatedBatchNorm
    from normcore_normalization.dynamic_tanh import DynamicTanh
    from normcore_normalization.filter_response_norm import FilterResponseNorm
    from normcore_normalization.group_norm import GroupNorm
    from normcore_normalization.instance_norm import InstanceNorm
    from normcore_normalization.layer_norm import LayerNorm
    from normcore_normalization.local_response_norm import LocalResponseNorm
    from normcore_normalization.lp_norm import LpNorm
    from normcore_normalization.mean_variance_norm import MeanVarianceNorm
    from normcore_normalization.rms_norm import RmsNorm

    return [
        BatchNorm,
        BatchRenorm,
        LayerNorm,
        GroupNorm,
        InstanceNorm,
        MeanVarianceNorm,
        RmsNorm,
        LocalResponseNorm,
        DynamicTanh,
        FilterResponseNorm,
        LpNorm,
        DecorrelatedBatchNorm,
    ]
