"""The augmentations that YAML names under `data.augment`, by name."""

from normcore.data.augmentation import Augmentation
from normcore.data.colour import Cutout, Mixup, PcaColour
from normcore.data.geometry import CenterCrop, HorizontalFlip, RandomCrop, RandomResizedCrop, Rotation

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    a.name: a
    for a in (CenterCrop, Cutout, HorizontalFlip, Mixup, PcaColour, RandomCrop, RandomResizedCrop, Rotation)
}
