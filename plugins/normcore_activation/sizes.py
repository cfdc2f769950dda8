"""The shapes at which elementwise activations are timed: `benchmarks = sizes.elementwise()`."""

from normcore.testing.samples import Sample

SHAPES = {
    "AlexNet's first maps, 37 MB: the memory's speed": (32, 96, 55, 55),
    "a late stage, 6 MB": (32, 256, 14, 14),
    "a classifier's output: in the cache": (128, 1000),
    "a handful: what a call costs": (64,),
}


def elementwise(**params):
    return tuple(Sample(reason, shape=shape, params=params) for reason, shape in SHAPES.items())
