"""Data: sources of samples, normalization and augmentation, and the loader that makes batches of them.

source.py         what a source declares; sources/ holds those that come along
dataset.py        what a source returns, checked, and its division into parts
normalize.py      normalizations        augment.py   augmentations (geometry.py, colour.py)
transforms.py     both together, as a run stores them
preparation.py    one batch's way through them
loader.py         workers, buffers, epochs
settings.py       the `data:` section of a network's file
image_file.py     one image file to an array     png.py       plain PNG files, fast
"""
