"""Min pooling: the smallest value of each window that slides over the map.

Forward:  y_o = min over taps k of x[o * stride - before + k * dilation], taps in the padding left out
Backward: dx_i = sum of dy_o over the windows o whose minimum was x_i; the others get nothing

It is -max_pool(-x), bit for bit, in one pass: the kernels are max_pool's (see there), with the comparison turned
round when they are compiled. The FIRST minimum takes the gradient, NaN wins, padding counts as +inf.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out). float32 and float64.
Neither PyTorch, ONNX nor Caffe has it; PyTorch's users write -max_pool(-x). Wrong parameters are errors as in
max_pool.

Source: morphological erosion; Serra 1982, "Image analysis and mathematical morphology".
"""

import numpy as np

from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling.max_pool import MaxPool
from normcore_pooling.positions import SMALLEST


class MinPool(MaxPool, name="min_pool", source="Serra 1982, Image analysis and mathematical morphology"):
    """The smallest value of each window; the gradient goes to the first minimum.

    kernel_size, stride (default: kernel_size), dilation: a number, or one for each spatial dimension.
    padding: the same, or [before, after] pairs, or "same". ceil_mode: keep windows that the right end cuts.
    return_indices: also give each minimum's flat position in its map (int64), for max_unpool.
    """

    operation = SMALLEST
    extreme = staticmethod(np.min)

    samples = (
        Sample("overlapping windows", shape=(2, 3, 9, 11), params={"kernel_size": 3, "stride": 2}),
        Sample("one dimension, padded", shape=(2, 3, 8), params={"kernel_size": 3, "padding": 1}),
        Sample("a small map at once", shape=(2, 3, 6, 6), params={"kernel_size": 2}),
    )
    error_samples = (
        ErrorSample(
            "larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "4 + padding 0 + 0 = 4 elements"
        ),
        ErrorSample("padding over half", {"kernel_size": 2, "padding": 2}, (2, 3, 8, 8), "at most half"),
    )

    def in_torch(self, torch, x, *, training, **arrays):
        found = super().in_torch(torch, -x, training=training)
        return (-found[0], found[1]) if self.return_indices else -found
