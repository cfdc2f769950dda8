"""Layers every network is made of, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_basic.add import Add
    from normcore_basic.concat import Concat
    from normcore_basic.conv import Conv
    from normcore_basic.dense import Dense
    from normcore_basic.dropout import Dropout
    from normcore_basic.embedding import Embedding
    from normcore_basic.flatten import Flatten
    from normcore_basic.multiply import Multiply
    from normcore_basic.permute import Permute
    from normcore_basic.reshape import Reshape
    from normcore_basic.scale import Scale
    from normcore_basic.spatial_dropout import SpatialDropout

    return [
        Add,
        Concat,
        Conv,
        Dense,
        Dropout,
        Embedding,
        Flatten,
        Multiply,
        Permute,
        Reshape,
        Scale,
        SpatialDropout,
    ]
