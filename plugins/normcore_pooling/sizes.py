"""The feature maps at which pooling is timed: those of the nets that made it known."""

from normcore.testing.samples import Sample

WINDOWS = (
    ("AlexNet, first pool", (32, 96, 55, 55), {"kernel_size": 3, "stride": 2}),
    ("AlexNet, second pool", (32, 256, 27, 27), {"kernel_size": 3, "stride": 2}),
    ("AlexNet, last pool", (32, 256, 13, 13), {"kernel_size": 3, "stride": 2}),
    ("a small image", (128, 64, 32, 32), {"kernel_size": 2, "stride": 2}),
    ("VGG, second stage", (32, 64, 112, 112), {"kernel_size": 2, "stride": 2}),
    ("VGG, last stage", (32, 256, 14, 14), {"kernel_size": 2, "stride": 2}),
    ("Inception's branch", (32, 192, 28, 28), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("LeNet on digits", (64, 32, 28, 28), {"kernel_size": 3, "stride": 2}),
    ("a whole map of 7 x 7", (32, 512, 7, 7), {"kernel_size": 7, "stride": 7}),
    ("a sequence", (32, 64, 4096), {"kernel_size": 2, "stride": 2}),
    ("a volume", (4, 32, 16, 28, 28), {"kernel_size": 2, "stride": 2}),
)


def windows(*left_out, **parameters):
    """Samples of sliding windows; left_out: parameters that the op does not have."""
    return tuple(
        Sample(reason, shape=shape, params={k: v for k, v in given.items() if k not in left_out} | parameters)
        for reason, shape, given in WINDOWS
        if not any(k in given for k in left_out)
    )


def bins():
    """Samples of adaptive pooling, whose first parameter is output_size."""
    return (
        Sample("bins of one size", shape=(32, 256, 14, 14), params={"output_size": 7}),
        Sample("bins that overlap", shape=(32, 512, 13, 13), params={"output_size": 6}),
        Sample("a whole map", shape=(32, 512, 7, 7), params={"output_size": 1}),
        Sample("a sequence", shape=(32, 64, 4096), params={"output_size": 64}),
    )


GLOBAL = (
    Sample("ResNet's last map", shape=(32, 512, 7, 7)),
    Sample("an early map", shape=(32, 64, 56, 56)),
    Sample("a sequence", shape=(32, 64, 4096)),
    Sample("a volume", shape=(4, 32, 16, 28, 28)),
)
