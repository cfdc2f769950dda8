"""The ten views of an image: where they lie, what is mirrored, and what cannot be cut."""

import numpy as np
import pytest

from normcore.data import ten_crop
from normcore.data.augment import AUGMENTATIONS
from normcore.data.dataset import Part
from normcore.data.normalize import NORMALIZERS
from normcore.data.samples import ArraySamples
from normcore.data.transforms import Transforms
from normcore.errors import UsageError

IMAGES = np.random.default_rng(0).random((5, 2, 6, 7))


def batch_of(transforms, images, wanted, batch_size=100):
    transforms.fit(ArraySamples(images))
    part = Part(ArraySamples(images), np.arange(5), np.arange(5))
    made = ten_crop.views(transforms, images.shape[1:], wanted)
    assert len(made) == 10
    return list(ten_crop.batches(part, made, batch_size, "float64"))


@pytest.mark.parametrize(
    "augmentations",
    [
        (AUGMENTATIONS["random_crop"](size=(4, 4)), AUGMENTATIONS["horizontal_flip"]()),
        (AUGMENTATIONS["horizontal_flip"](), AUGMENTATIONS["random_resized_crop"](size=4)),
        (),  # the images are larger than the net's input
    ],
)
def test_corners_and_middle_and_their_mirror_images(augmentations):
    ((x, targets),) = batch_of(Transforms(None, augmentations), IMAGES, (2, 4, 4))
    assert targets.tolist() == [0, 1, 2, 3, 4]
    views = x.reshape(10, 5, 2, 4, 4)
    starts = [(0, 0), (0, 3), (2, 0), (2, 3), (1, 1)]
    for k, (top, left) in enumerate(starts):
        expected = IMAGES[:, :, top : top + 4, left : left + 4]
        np.testing.assert_array_equal(views[k], expected)
        np.testing.assert_array_equal(views[k + 5], expected[..., ::-1])


def test_a_crop_from_padding_takes_the_padded_corners_and_the_image_itself():
    transforms = Transforms(None, [AUGMENTATIONS["random_crop"](padding=2)])
    ((x, _),) = batch_of(transforms, IMAGES, (2, 6, 7))
    views = x.reshape(10, 5, 2, 6, 7)
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_array_equal(views[0], padded[:, :, :6, :7])
    np.testing.assert_array_equal(views[3], padded[:, :, 4:, 4:])
    np.testing.assert_array_equal(views[4], IMAGES)


def test_small_batches_and_normalization():
    """Each batch holds as many samples as ten views of them fit; a per-pixel normalization comes before the crop."""
    transforms = Transforms(NORMALIZERS["subtract_mean"](), [AUGMENTATIONS["center_crop"](size=4)])
    batches = batch_of(transforms, IMAGES, (2, 4, 4), batch_size=21)
    assert [len(targets) for _, targets in batches] == [2, 2, 1]
    transforms = Transforms(NORMALIZERS["subtract_mean"](), [AUGMENTATIONS["center_crop"](size=4)])
    ((x, _),) = batch_of(transforms, IMAGES, (2, 4, 4))
    np.testing.assert_allclose(x[:5], (IMAGES - IMAGES.mean(0))[:, :, :4, :4], atol=1e-12)


@pytest.mark.parametrize("wanted", [(2, 6, 7), (2, 8, 8), (84,)])
def test_what_has_no_corners(wanted):
    with pytest.raises(UsageError, match="--ten-crop"):
        ten_crop.views(Transforms(), (2, 6, 7), wanted)
