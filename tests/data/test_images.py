import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gossamer.data import ImageProcessing, Images, read_images

DRAW = np.random.default_rng(0)


def write_class(folder, name, *images, suffix=".png"):
    """Writes arrays as the files of one class."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")


def colours(height=4, width=6):
    return DRAW.integers(0, 256, (height, width, 3), np.uint8)


def test_a_folder_has_a_class_in_each_sub_folder(tmp_path):
    cats, dogs = [colours(), colours()], [colours()]
    write_class(tmp_path, "dogs", *dogs)
    write_class(tmp_path, "cats", *cats)
    (tmp_path / ".cache").mkdir()
    images = read_images(tmp_path)
    assert images.names == ("cats", "dogs")
    assert images.labels.tolist() == [0, 0, 1]
    assert images.source == tmp_path.name
    np.testing.assert_array_equal(images.pixels, [*cats, *dogs])


def test_grey_and_colour_files_become_what_is_asked_for(tmp_path):
    grey = DRAW.integers(0, 256, (4, 4), np.uint8)
    write_class(tmp_path, "a", grey, np.stack([grey] * 3, axis=-1))
    three, one = read_images(tmp_path), read_images(tmp_path, channels=1)
    np.testing.assert_array_equal(three.pixels, [np.stack([grey] * 3, axis=-1)] * 2)
    np.testing.assert_array_equal(one.pixels, [grey[..., None]] * 2)


def test_files_are_resized_as_pillow_does(tmp_path):
    wide, high = colours(4, 8), colours(9, 5)
    write_class(tmp_path, "a", wide, high)
    images = read_images(tmp_path, size=(6, 3), resample="bicubic")
    want = [
        np.asarray(Image.fromarray(each).resize((3, 6), Image.Resampling.BICUBIC))
        for each in (wide, high)
    ]
    np.testing.assert_array_equal(images.pixels, want)


def test_jpeg_files_are_read(tmp_path):
    flat = np.full((8, 8, 3), 200, np.uint8)
    write_class(tmp_path, "a", flat, suffix=".jpg")
    np.testing.assert_allclose(read_images(tmp_path).pixels[0], flat, atol=3)


def test_images_of_several_sizes_are_refused_with_the_way_out(tmp_path):
    write_class(tmp_path, "a", colours(4, 6), colours(5, 6))
    message = r"0\.png has 4 x 6 pixels .* and .*1\.png has 5 x 6; give a size"
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path)


def _bytes_of(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


DEEP = _bytes_of(Image.fromarray(np.full((4, 4), 40000, np.uint16)))
BOMB = (  # a header that claims 2^30 pixels
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + (ihdr := b"IHDR" + struct.pack(">IIBBBBB", 1 << 15, 1 << 15, 8, 2, 0, 0, 0))
    + struct.pack(">I", zlib.crc32(ihdr))
    + struct.pack(">I", 0)
    + b"IDAT"
    + struct.pack(">I", zlib.crc32(b"IDAT"))
)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no sub-folders: put the images of each class"),
        ({"0.png": b""}, "has no sub-folders"),
        ({"a/": None}, r"folder .*a is empty: a class needs"),
        ({"a/0.png": b"", "note.txt": b"x"}, r"files beside its classes \(note.txt, 1 in all\)"),
        ({"a/note.txt": b"x"}, r"note\.txt is no image by its name: \.png, \.jpg, \.jpeg"),
        ({"a/0.png": b""}, r"Image .*0\.png cannot be read"),
        ({"a/0.jpg": b"GIF89a" + bytes(20)}, r"Image .*0\.jpg cannot be read"),
        ({"a/0.png": DEEP}, r"0\.png cannot be read: its pixels are of Pillow's mode 'I"),
        ({"a/0.png": BOMB}, r"0\.png cannot be read: .*decompression bomb"),
    ],
    ids=range(9),
)
def test_folders_that_do_not_do_are_refused_by_name(tmp_path, files, message):
    for name, content in files.items():
        path = tmp_path / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path)


@settings(max_examples=100)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_by_name_or_read_but_never_crashes(
    tmp_path_factory, place, byte, cut
):
    data = bytearray(_bytes_of(Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))))
    at = int(place * (len(data) - 1))
    data[at:] = b"" if cut else bytes([byte]) + data[at + 1 :]
    folder = tmp_path_factory.mktemp("images")
    (folder / "a").mkdir()
    (folder / "a" / "0.png").write_bytes(data)
    try:
        read_images(folder)
    except ValueError as error:
        assert "0.png" in str(error)  # noqa: PT017


def write_arrays(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


PIXELS = DRAW.integers(0, 256, (3, 4, 5), np.uint8)


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels")])
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=str)
def test_arrays_are_taken_as_they_are(tmp_path, names, channels):
    pixels = DRAW.integers(0, 256, (3, 4, 5, *channels), np.uint8)
    arrays = dict(zip(names, (pixels, np.array([2, 0, 1], np.int64)), strict=True))
    images = read_images(write_arrays(tmp_path / "a.npz", **arrays))
    np.testing.assert_array_equal(images.pixels, pixels.reshape(3, 4, 5, -1))
    assert images.labels.tolist() == [2, 0, 1]
    assert images.labels.dtype == np.int32
    assert images.names == ("0", "1", "2")
    assert images.source == "a.npz"


def test_arrays_may_name_their_classes(tmp_path):
    names = np.array(["cat", "dog"])
    path = write_arrays(tmp_path / "a.npz", x=PIXELS, y=np.array([0, 0, 0]), names=names)
    assert read_images(path).names == ("cat", "dog")


LABELS = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": PIXELS, "y": LABELS}, r"needs the arrays x and y or images and labels, .*'a', 'y'"),
        ({"x": PIXELS / 255, "y": LABELS}, "x must be uint8, .* got float64"),
        ({"x": PIXELS[0], "y": LABELS}, r"x must be \[N, H, W\].* got \(4, 5\)"),
        (
            {"x": np.zeros((3, 3, 4, 4), np.uint8), "y": LABELS},
            r"channels last, got \(3, 3, 4, 4\)",
        ),
        ({"x": PIXELS[:0], "y": LABELS[:0]}, r"x must be .* got \(0, 4, 5\)"),
        ({"x": PIXELS, "y": LABELS / 2}, "y must be whole numbers, got float64"),
        ({"x": PIXELS, "y": LABELS[:2]}, r"x has 3 images and y is \(2,\); each image needs one"),
        ({"x": PIXELS, "y": LABELS[:, None]}, r"x has 3 images and y is \(3, 1\)"),
        ({"x": PIXELS, "y": LABELS - 1}, r"y\[0\] is -1, outside the 1 classes from 0 on"),
        ({"x": PIXELS, "y": LABELS * 2, "names": np.array(["a", "b"])}, r"y\[1\] is 2, outside"),
        ({"x": PIXELS, "y": LABELS << 40}, r"y\[1\] is 1099511627776, outside"),
        ({"x": PIXELS, "y": LABELS, "names": np.arange(2)}, "names must be a list of strings"),
        ({"x": PIXELS.astype(object), "y": LABELS}, "cannot be read: Object arrays"),
    ],
    ids=range(13),
)
def test_arrays_that_do_not_do_are_refused_by_name(tmp_path, arrays, message):
    path = write_arrays(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        read_images(path)


def test_a_damaged_archive_is_refused_by_name(tmp_path):
    path = write_arrays(tmp_path / "a.npz", x=PIXELS, y=LABELS)
    whole = path.read_bytes()
    np.save(tmp_path / "b.npy", PIXELS)
    single = (tmp_path / "b.npy").read_bytes()
    for content in (
        b"",
        single,
        whole[:100],
        b"PK" + bytes(50),
        whole[:60] + b"\0" * 40 + whole[100:],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz"):
            read_images(path)


def test_what_is_no_source_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a\.txt holds no labelled images"):
        read_images(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"There are no images 'nowhere'"):
        read_images("nowhere")


def test_the_digits_are_those_of_scikit_learn():
    digits = read_images("digits")
    assert digits.pixels.shape == (1797, 8, 8, 1)
    assert digits.pixels.max() == 255
    assert digits.names == tuple("0123456789")
    assert np.bincount(digits.labels).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180
    ]  # fmt: skip


@settings(max_examples=30)
@given(seed=st.integers(0, 9), share=st.sampled_from([0.1, 0.25, 0.5]))
def test_a_split_holds_the_same_share_of_every_class_out(seed, share):
    labels = np.random.default_rng(seed).integers(0, 3, 60).astype(np.int32)
    pixels = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)  # tells which image it is
    images = Images(pixels, labels, ("a", "b", "c"))
    learned, held_out = images.split(share, seed)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([learned.pixels, held_out.pixels]).ravel()), np.arange(60)
    )
    counts = [np.bincount(part.labels, minlength=3) for part in (images, held_out)]
    assert counts[1].tolist() == [round(count * share) for count in counts[0].tolist()]
    again = images.split(share, seed)[1]
    np.testing.assert_array_equal(again.pixels, held_out.pixels)
    np.testing.assert_array_equal(labels[held_out.pixels.ravel()], held_out.labels)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01])
def test_a_split_with_an_empty_part_is_refused(share):
    images = Images(np.zeros((4, 1, 1, 1), np.uint8), np.zeros(4, np.int32), ("a",))
    with pytest.raises(ValueError, match=r"between 0 and 1, got|leaves one part empty"):
        images.split(share, seed=0)


PROCESSING = ImageProcessing(size=(1, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
VIT = {  # the preprocessor_config.json of google/vit-base-patch16-224
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": 224,
}


def test_pixels_are_normalized_channel_by_channel():
    pixels = np.array([[[[0, 255, 51], [255, 0, 102]]]], np.uint8)
    want = [[[[-1, 3, 0.2], [1, -1, 0.4]]]]
    np.testing.assert_allclose(PROCESSING.normalize(pixels), want, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 2, 3), (1, 1, 2, 1)])
def test_pixels_of_another_size_are_not_normalized(shape):
    with pytest.raises(ValueError, match=r"images of 1 x 2 pixels and 3 channels .*, got"):
        PROCESSING.normalize(np.zeros(shape, np.uint8))


def test_a_preprocessor_of_transformers_is_read():
    half = (0.5, 0.5, 0.5)
    assert ImageProcessing.from_hf(VIT) == ImageProcessing(size=(224, 224), mean=half, std=half)
    later = {**VIT, "size": {"height": 32, "width": 48}, "resample": 3, "rescale_factor": 1 / 255}
    want = ImageProcessing(size=(32, 48), mean=half, std=half, resample="bicubic")
    assert ImageProcessing.from_hf(later) == want
    plain = ImageProcessing.from_hf({**VIT, "do_normalize": False})
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)


def test_what_is_written_reads_back_equal():
    assert ImageProcessing.from_hf(PROCESSING.to_hf()) == PROCESSING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize must be absent or True, got False"),
        ({"do_center_crop": True}, "do_center_crop must be absent or False, got True"),
        ({"do_rescale": False}, "do_rescale must be absent or True"),
        ({"rescale_factor": 1.0}, "rescale_factor must be 1 / 255, got 1.0"),
        ({"size": {"shortest_edge": 224}}, "size must be a number or a height and a width"),
        ({"image_mean": None}, "image_mean must be a list of numbers, got None"),
        ({"image_std": ["a"]}, "image_std must be a list of numbers"),
        ({"image_std": [0.0, 1.0, 1.0]}, "positive standard deviation for each channel"),
        ({"image_std": [1.0]}, "a mean and a positive standard deviation for each channel"),
        ({"resample": 7}, "resample must be one of Pillow's 0 to 5: 7"),
        ({"resample": 7, "size": None}, r"size must be .*; resample must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_preprocessor_that_does_something_else_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ImageProcessing.from_hf({**VIT, **change})
