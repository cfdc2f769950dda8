"""Activation layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_activation.abs import absolute
    from normcore_activation.bnll import bnll
    from normcore_activation.celu import celu
    from normcore_activation.clip import clip
    from normcore_activation.crelu import Crelu
    from normcore_activation.elu import elu
    from normcore_activation.exponential import exponential
    from normcore_activation.geglu import Geglu
    from normcore_activation.gelu import gelu
    from normcore_activation.glu import Glu
    from normcore_activation.hard_shrink import hard_shrink
    from normcore_activation.hard_sigmoid import hard_sigmoid
    from normcore_activation.hard_swish import hard_swish
    from normcore_activation.hard_tanh import hard_tanh
    from normcore_activation.hardmax import Hardmax
    from normcore_activation.identity import identity
    from normcore_activation.leaky_relu import leaky_relu
    from normcore_activation.log_sigmoid import log_sigmoid
    from normcore_activation.log_softmax import LogSoftmax
    from normcore_activation.maxout import Maxout
    from normcore_activation.mish import mish
    from normcore_activation.prelu import Prelu
    from normcore_activation.reglu import Reglu
    from normcore_activation.relu import relu
    from normcore_activation.relu6 import relu6
    from normcore_activation.relu_squared import relu_squared
    from normcore_activation.rrelu import Rrelu
    from normcore_activation.selu import selu
    from normcore_activation.sigmoid import sigmoid
    from normcore_activation.silu import silu
    from normcore_activation.soft_shrink import soft_shrink
    from normcore_activation.softmax import Softmax
    from normcore_activation.softmin import Softmin
    from normcore_activation.softplus import softplus
    from normcore_activation.softsign import softsign
    from normcore_activation.sparsemax import Sparsemax
    from normcore_activation.squareplus import squareplus
    from normcore_activation.swiglu import Swiglu
    from normcore_activation.tanh import tanh
    from normcore_activation.tanh_shrink import tanh_shrink
    from normcore_activation.threshold import threshold
    from normcore_activation.thresholded_relu import thresholded_relu

    return [
        absolute,
        bnll,
        celu,
        clip,
        Crelu,
        elu,
        exponential,
        Geglu,
        gelu,
        Glu,
        hard_shrink,
        hard_sigmoid,
        hard_swish,
        hard_tanh,
        Hardmax,
        identity,
        leaky_relu,
        log_sigmoid,
        LogSoftmax,
        Maxout,
        mish,
        Prelu,
        Reglu,
        relu,
        relu6,
        relu_squared,
        Rrelu,
        selu,
        sigmoid,
        silu,
        soft_shrink,
        Softmax,
        Softmin,
        softplus,
        softsign,
        Sparsemax,
        squareplus,
        Swiglu,
        tanh,
        tanh_shrink,
        threshold,
        thresholded_relu,
    ]
