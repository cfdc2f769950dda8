"""selu: an elu scaled so that activations keep mean 0 and variance 1 from layer to layer.

Forward   y = scale * x for x > 0, else scale * alpha * (e^x - 1)
Gradient  dy/dx = scale for x > 0, else scale * alpha * e^x
          scale = 1.0507009873554805 and alpha = 1.6732632423543772: the fixed point of the paper's equations 14
Numerics  scale * alpha = 1.7580993408473768 is one constant: one rounding less. expm1 as in elu.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, expm1_nonpositive
from normcore_activation import sizes


@normcore.elementwise(source="Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515")
class selu:
    """y = 1.0507 x for x > 0, else 1.7581 (exp(x) - 1); dy/dx = 1.0507 or 1.7581 exp(x)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return 1.0507009873554805 * x if x >= 0.0 else 1.7580993408473768 * expm1_nonpositive(x)

    def derivative(x, y):
        return 1.0507009873554805 if x > 0.0 else 1.7580993408473768 * exp_nonpositive(x)

    def reference(x):
        negative = 1.6732632423543772848170429916717 * (np.exp(np.minimum(x, 0.0)) - 1.0)
        return 1.0507009873554804934193349852946 * np.where(x > 0.0, x, negative)

    def in_torch(torch, x):
        return torch.nn.functional.selu(x)
