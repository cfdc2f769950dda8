"""Image folders and single images, on files written here."""

import warnings

import numpy as np
import pytest
from PIL import Image

from normcore.data.dataset import divide
from normcore.data.image_file import decode, read_image, size_of
from normcore.data.loader import Loader
from normcore.data.samples import taken
from normcore.data.sources import images
from normcore.data.sources.images import Images
from normcore.errors import DataError, ParameterError

RNG = np.random.default_rng(2)


def write(path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_folder(root, parts=("train", "test"), shape=(6, 8, 3), count=3) -> dict[str, np.ndarray]:
    return {
        f"{part}/{name}/{i}.png": write(
            root / part / name / f"{i}.png", RNG.integers(0, 256, shape, dtype=np.uint8)
        )
        for part in parts
        for name in ("ant", "bee")
        for i in range(count)
    }


def test_folder_of_parts(tmp_path):
    """train/ and test/ with a folder a class, classes by name, pixels exactly those of the files."""
    given = write_folder(tmp_path)
    data = Images(str(tmp_path)).load(tmp_path)
    assert (data.shape, data.class_names, data.y_train.tolist()) == (
        (3, 6, 8),
        ("ant", "bee"),
        [0, 0, 0, 1, 1, 1],
    )
    got = taken(data.x_train, np.array([4, 0]))
    np.testing.assert_array_equal(got[0], given["train/bee/1.png"].transpose(2, 0, 1))
    np.testing.assert_array_equal(got[1], given["train/ant/0.png"].transpose(2, 0, 1))
    np.testing.assert_array_equal(taken(data.x_train, np.array([4])), got[:1])  # now from memory


@pytest.mark.parametrize("memory", [0, 1024])
def test_folder_without_parts(tmp_path, memory):
    """Class folders at the top: the test part is split off; kept in memory or decoded each time."""
    write_folder(tmp_path, parts=(".",), count=10)
    data = Images(str(tmp_path), memory_mb=memory, channels=1).load(tmp_path)
    assert data.x_test is None
    assert data.shape == (1, 6, 8)
    parts = divide(data, test=0.3)
    assert np.bincount(data.y_train[parts["test"].indices]).tolist() == [3, 3]
    everything = np.arange(20)
    np.testing.assert_array_equal(taken(data.x_train, everything), taken(data.x_train, everything))
    assert (data.x_train._kept is None) == (memory == 0)


def test_size_brings_images_together(tmp_path):
    """Different sizes and formats; the middle part with the right aspect ratio, not squeezed."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # only this part is inside a square cut from the middle
    write(tmp_path / "train/ant/a.png", wide)
    write(tmp_path / "train/bee/b.jpg", np.full((30, 30, 3), 100, np.uint8))
    data = Images(str(tmp_path), size=10).load(tmp_path)
    assert data.shape == (3, 10, 10)
    got = taken(data.x_train, np.arange(2))
    assert (got[0, :, :, 1:-1] == 200).all()  # the filter sees a little beyond the edge
    assert (got[0] > 150).all()
    assert np.abs(got[1].astype(int) - 100).max() <= 2
    with pytest.raises(
        DataError, match=r"b\.jpg has 30 x 30 pixels .*expected 20 x 60 as a\.png; set data\.size"
    ):
        Images(str(tmp_path)).load(tmp_path)


def test_bad_folders(tmp_path):
    """Empty class folder, no class folder, a class only the test part has."""
    with pytest.raises(DataError, match="holds no class folders"):
        Images(str(tmp_path)).load(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "test/cow").mkdir()
    with pytest.raises(DataError, match="cow is a class folder without images"):
        Images(str(tmp_path)).load(tmp_path)
    write(tmp_path / "test/cow/1.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"'cow' does not occur in the training part .ant, bee."):
        Images(str(tmp_path)).load(tmp_path)


def test_bad_image_is_fatal_or_skipped(tmp_path):
    """A file that is no image is named; with skip the next good one of its class stands in, with a
    warning."""
    given = write_folder(tmp_path)
    bad = tmp_path / "train/ant/2.png"
    bad.write_text("hello")
    data = Images(str(tmp_path), size=(6, 8)).load(tmp_path)
    with pytest.raises(DataError, match=r"ant.2\.png is no readable image"):
        taken(data.x_train, np.arange(6))
    data = Images(str(tmp_path), size=(6, 8), bad_images="skip", memory_mb=0).load(tmp_path)
    with pytest.warns(UserWarning, match=r"2\.png .* \(skipped"):
        got = taken(data.x_train, np.array([2]))
    np.testing.assert_array_equal(got[0], given["train/ant/0.png"].transpose(2, 0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken(data.x_train, np.array([2]))
    for i in (0, 1):
        (tmp_path / f"train/ant/{i}.png").write_text("hello")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="no image of this class can be read"):
        taken(data.x_train, np.array([2]))


def test_large_images_are_decoded_by_several_threads(tmp_path, monkeypatch):
    """The same bytes however many, and the first bad file of a batch is the one that is named."""
    given = write_folder(tmp_path, shape=(80, 90, 3), count=4)
    everything = np.arange(8)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(images, "_THREADS", threads)
        for memory in (0, 1024):
            data = Images(str(tmp_path), memory_mb=memory).load(tmp_path)
            found.append(taken(data.x_train, everything))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    np.testing.assert_array_equal(found[0][5], given["train/bee/1.png"].transpose(2, 0, 1))
    data = Images(str(tmp_path), size=(80, 90)).load(tmp_path)
    for name in ("ant/1", "bee/3"):
        (tmp_path / f"train/{name}.png").write_text("hello")
    with pytest.raises(DataError, match=r"ant.1\.png is no readable image"):
        taken(data.x_train, everything)


@pytest.mark.parametrize("shape", [(6, 8, 3), (80, 90, 3)], ids=["small", "large"])
def test_the_number_of_workers_changes_no_bit(tmp_path, shape):
    """Plain PNGs, decoded a batch at a time, beside a JPEG and a file of another channel count."""
    write_folder(tmp_path, shape=shape, count=6)
    write(tmp_path / "train/ant/7.jpg", RNG.integers(0, 256, shape, dtype=np.uint8))
    write(tmp_path / "train/bee/7.png", RNG.integers(0, 256, (*shape[:2], 4), dtype=np.uint8))

    def epochs(workers, memory):
        loader = Loader(Images(str(tmp_path), memory_mb=memory).load(tmp_path), 3, workers=workers)
        return np.concatenate([x.copy() for epoch in (0, 1) for x, _ in loader.epoch(epoch)])

    expected = epochs(0, 1024)
    assert len(expected) == 28
    for workers, memory in ((0, 0), (1, 1024), (4, 1024), (4, 0)):
        np.testing.assert_array_equal(epochs(workers, memory), expected)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": (3, 0)}, {"memory_mb": -1}])
def test_parameters(options):
    """Values that can never be right."""
    with pytest.raises(ParameterError):
        Images("x", **options)


def test_conversions(tmp_path):
    """Grey to colour and back, palette, transparency on white, 16 bits, orientation."""
    grey = write(tmp_path / "grey.png", RNG.integers(0, 256, (5, 7), dtype=np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", 3), np.stack([grey] * 3))
    colour = write(tmp_path / "colour.png", RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "colour.png", 1)[0] - luma).max() <= 1
    Image.fromarray(colour).quantize(256).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png", 3).shape == (3, 5, 7)
    write(tmp_path / "clear.png", np.dstack([colour, np.zeros((5, 7), np.uint8)]))
    assert (read_image(tmp_path / "clear.png", 3) == 255).all()
    write(tmp_path / "deep.png", grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", 1)[0], grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(colour).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        decode(tmp_path / "turned.png", 3, None), np.rot90(colour, -1).transpose(2, 0, 1)
    )


def test_resized_to_the_net(tmp_path):
    """A size is met exactly; large JPEGs, which are decoded smaller, keep their colours."""
    ramp = np.repeat(np.linspace(0, 255, 400, dtype=np.uint8)[None], 300, 0)
    write(tmp_path / "a.png", ramp)
    write(tmp_path / "a.jpg", np.dstack([ramp] * 3))
    png, jpg = read_image(tmp_path / "a.png", 1, (28, 28)), read_image(tmp_path / "a.jpg", 1, (28, 28))
    assert png.shape == jpg.shape == (1, 28, 28)
    assert np.abs(png.astype(int) - jpg).max() <= 4
    assert (np.diff(png[0, 0].astype(int)) > 0).all()


def test_npy(tmp_path):
    """(H, W), (H, W, C) and (C, H, W); floats stay as they are; anything else says both shapes."""
    x = RNG.random((4, 6, 3))
    np.save(tmp_path / "a.npy", x)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", 3, (4, 6)), x.transpose(2, 0, 1))
    np.save(tmp_path / "b.npy", x[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / "b.npy", 1, (4, 6))[0], x[:, :, 0])
    np.save(tmp_path / "c.npy", x.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(tmp_path / "c.npy", 3, (4, 6)), x.transpose(2, 0, 1))
    with pytest.raises(
        DataError, match=r"has shape \(4, 6, 3\); the net's input is one sample of \(1, 4, 6\)"
    ):
        read_image(tmp_path / "a.npy", 1, (4, 6))
    np.save(tmp_path / "d.npy", np.arange(5.0))
    np.testing.assert_array_equal(read_image(tmp_path / "d.npy", 5, ()), np.arange(5.0))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n garbage"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.npy"])
def test_no_image(tmp_path, name, content):
    """A file that is no image is one DataError that names it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.{name[2:]} is no readable"):
        read_image(tmp_path / name, 1, (28, 28))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_image(tmp_path, suffix, share):
    """Cut at any place, the file is refused, not half shown."""
    write(tmp_path / f"a.{suffix}", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="no readable image"):
        read_image(tmp_path / f"a.{suffix}", 1)


def test_missing_and_unfit(tmp_path):
    """No file; a net whose input is no image."""
    with pytest.raises(DataError, match="there is no such file"):
        read_image(tmp_path / "a.png", 1, (2, 2))
    write(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r"the net's input \(4, 2, 2\)"):
        read_image(tmp_path / "a.png", 4, (2, 2))
    for size in ((784,), ()):
        with pytest.raises(DataError, match=r"an image is .* the net's input \(1,.*; give an array"):
            read_image(tmp_path / "a.png", 1, size)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"hello", "of no known format")]
)
def test_what_is_no_image_is_said_in_words(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    for read in (size_of, lambda path: decode(path, 3, (2, 2))):
        with pytest.raises(DataError, match=rf"a\.png is no readable image \({reason}\)"):
            read(tmp_path / "a.png")
