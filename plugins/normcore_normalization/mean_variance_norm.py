"""Mean-variance normalization, as Caffe and ONNX have it: no parameters, eps outside the root.

Forward, over the m values x_i that share a statistic:
    mu = 1/m sum x_i        sigma = sqrt(1/m sum (x_i - mu)^2)        y_i = (x_i - mu) / (sigma + eps)
or y_i = x_i - mu with normalize_variance=False.
Backward, with g_i = dL/dy_i: sigma's own gradient is (x_i - mu) / (m sigma), so
    dx_i = 1 / (sigma + eps) * (g_i - 1/m sum_j g_j - y_i * (sigma + eps) / sigma * 1/m sum_j g_j * y_j)
The last part is 0 where sigma is 0: a constant channel is a kink, and its slope is taken as that of x - mu.

Which values share a statistic: those of one channel of one sample (Caffe's default); across_channels adds the
sample's other channels, across_batch the other samples. across_batch=True with across_channels=False is ONNX's
MeanVarianceNormalization with its default axes [0, 2, 3], and batch_norm's training statistics; it computes the
statistics of the batch in inference too. In Caffe eps stands outside the root as here (instance_norm: inside).

Shapes: x, y (N, C, *spatial), (N, C) included. float32 and float64.

Source: Jia et al. 2014, "Caffe: convolutional architecture for fast feature embedding", arXiv:1408.5093 (its MVN
layer); ONNX operator MeanVarianceNormalization.
"""

import numpy as np

from normcore import Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.group_layers import GroupedNormalization


class MeanVarianceNorm(
    GroupedNormalization,
    name="mean_variance_norm",
    aliases=("mvn",),
    source="Jia et al. 2014, arXiv:1408.5093; ONNX MeanVarianceNormalization",
):
    """(x - mean) / (sqrt(var) + eps) over space, and over channels or the batch if told so.

    across_channels: channels of a sample share their statistics. across_batch: samples do. normalize_variance:
    False takes out the mean only. eps: added to the standard deviation.
    """

    across_channels: bool = False
    across_batch: bool = False
    normalize_variance: bool = True
    eps: float = 1e-9

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    epilogue = "input"

    samples = (
        Sample("each channel of each sample", shape=(3, 5, 4, 7)),
        Sample("ONNX: channels over the batch", shape=(3, 5, 4, 7), params={"across_batch": True}),
        Sample("each sample", shape=(9, 4, 3, 5), params={"across_channels": True, "eps": 0.1}),
        Sample(
            "everything at once",
            shape=(2, 3, 17, 19),
            params={"across_channels": True, "across_batch": True},
        ),
        Sample("the mean only", shape=(2, 3, 11), params={"normalize_variance": False}),
        Sample("dense features over the batch", shape=(6, 5), params={"across_batch": True}),
    )
    error_samples = (
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
    )
    benchmarks = (Sample("AlexNet, first map", shape=(32, 96, 55, 55)),)

    @property
    def per_sample(self):
        return not self.across_batch

    def groups_of(self, channels):
        return 1 if self.across_channels else channels

    def _eps(self):
        return float(self.eps) if self.normalize_variance else -1.0

    def plan(self, x: Tensor) -> Plan:
        return self.plan_groups(x, bend=True)

    def reference(self, x, **_):
        x = np.asarray(x, np.float64)
        axes = (*range(2, x.ndim),)
        axes += (1,) if self.across_channels else ()
        axes += (0,) if self.across_batch else ()
        centred = x - np.mean(x, axes, keepdims=True) if axes else x * 0.0
        if self.normalize_variance:
            centred = centred / (np.sqrt(np.mean(centred**2, axes, keepdims=True)) + self.eps)
        return centred
