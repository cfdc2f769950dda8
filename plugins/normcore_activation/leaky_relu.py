"""leaky_relu: a relu whose negative side keeps a small slope.

Forward   y = x for x > 0, else negative_slope * x
Gradient  dy/dx = 1 for x > 0, else negative_slope (at the kink too, as in PyTorch)
Any shape, float32 and float64. The default slope is PyTorch's 0.01; Keras has 0.3, TensorFlow 0.2, Caffe 0.
negative_slope 0 gives relu.
"""

import numpy as np

import normcore
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(
    aliases=("lrelu",),
    source="Maas, Hannun and Ng 2013, Rectifier nonlinearities improve neural network acoustic models",
)
class leaky_relu:
    """y = x for x > 0, else negative_slope * x; dy/dx = 1 or negative_slope."""

    negative_slope: float = 0.01

    samples = (
        Sample("the default slope", shape=(3, 5, 7)),
        Sample(
            "a slope above 1 is steeper on the negative side", shape=(4, 6), params={"negative_slope": 1.5}
        ),
        Sample("a negative slope folds the line", shape=(2, 3, 4, 5), params={"negative_slope": -0.2}),
        Sample("slope 0 is relu", shape=(17,), params={"negative_slope": 0.0}),
    )
    benchmarks = sizes.elementwise()

    def forward(x, negative_slope):
        return x if x > 0.0 else negative_slope * x

    def derivative(x, y, negative_slope):
        return 1.0 if x > 0.0 else negative_slope

    def reference(x, negative_slope):
        return np.maximum(x, 0.0) + negative_slope * np.minimum(x, 0.0)

    def in_torch(torch, x, negative_slope):
        return torch.nn.functional.leaky_relu(x, negative_slope)
