"""Reads labelled images: folders of files, arrays, and the digits that come with scikit-learn."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gossamer.data.images import Images, Resample

Channels: TypeAlias = Literal[1, 3]

DIGITS = "digits"
"""Names the 1797 digits of 8 x 8 grey pixels that scikit-learn brings, in place of a file."""

ARRAYS = (("x", "y"), ("images", "labels"))
"""Names of the two arrays of an `.npz`: pixels and labels."""

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")
"""What Pillow turns into 8 bits a channel without cutting values off."""
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_images(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: Channels = 3,
    resample: Resample = "bilinear",
) -> Images:
    """Reads labelled images, all of them into memory.

    Args:
        source: a folder with a sub-folder of PNG or JPEG files for each class, in the order of
            their names; an `.npz` with `x` (or `images`), uint8 of [N, H, W] or [N, H, W, C], and
            `y` (or `labels`), whole numbers, perhaps with `names` of the classes; or "digits".
        size: height and width that files are resized to, whatever their shape; None takes them as
            they are, which must be all alike. Arrays are never resized.
        channels: of files: 1 turns colours into grey, 3 grey into colours; what is transparent
            shows the colour below. Arrays keep theirs.
        resample: how files are resized.

    Raises:
        ValueError: there is no such source, a file is damaged or of a kind that is not read, sizes
            differ, labels are missing or do not belong to the images; the file is named.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, size, channels, resample)
    if path.suffix == ".npz" and path.is_file():
        return _read_arrays(path)
    if str(source) == DIGITS:
        return _digits()
    if path.is_file():
        raise ValueError(
            f"{path} holds no labelled images: those are a folder with a sub-folder for each "
            f'class, an .npz, or the word "{DIGITS}".'
        )
    raise ValueError(f'There are no images {str(source)!r}: no folder, no .npz, not "{DIGITS}".')


def _digits() -> Images:
    from sklearn.datasets import load_digits  # takes a second, wanted by nobody else

    rows, target = load_digits(return_X_y=True)
    grey = np.round(np.asarray(rows).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # 0 to 16
    labels = np.asarray(target).astype(np.int32)
    names = tuple(str(digit) for digit in range(10))
    return Images(grey[..., None], labels, names, "digits of scikit-learn")


def _read_folder(
    folder: Path, size: tuple[int, int] | None, channels: Channels, resample: Resample
) -> Images:
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise ValueError(
            f"Image folder {folder} has no sub-folders: put the images of each class in one of its "
            "own, named after the class."
        )
    if loose := [entry.name for entry in entries if not entry.is_dir()]:
        raise ValueError(
            f"Image folder {folder} has files beside its classes ({loose[0]}, {len(loose)} in "
            "all): every image belongs in the sub-folder of its class."
        )
    files = [(file, label) for label, each in enumerate(classes) for file in _files(each)]
    first = _read_file(files[0][0], size, channels, resample)
    pixels = np.empty((len(files), *first.shape), np.uint8)
    for index, (file, _) in enumerate(files):
        image = _read_file(file, size, channels, resample)
        if image.shape != first.shape:
            raise ValueError(
                f"Images differ in size: {files[0][0]} has {first.shape[0]} x {first.shape[1]} "
                f"pixels (height x width) and {file} has {image.shape[0]} x {image.shape[1]}; "
                "give a size, to which all are resized."
            )
        pixels[index] = image
    labels = np.asarray([label for _, label in files], np.int32)
    return Images(pixels, labels, tuple(each.name for each in classes), folder.resolve().name)


def _files(folder: Path) -> list[Path]:
    """The images of one class, in the order of their names."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    if not files:
        raise ValueError(f"Image folder {folder} is empty: a class needs at least one image.")
    if odd := [file for file in files if file.suffix.lower() not in _SUFFIXES]:
        raise ValueError(f"{odd[0]} is no image by its name: {', '.join(_SUFFIXES)} are read.")
    return files


def _read_file(
    file: Path, size: tuple[int, int] | None, channels: Channels, resample: Resample
) -> UInt8[np.ndarray, "H W C"]:
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            image.load()
            if image.mode not in _MODES:
                raise ValueError(
                    f"its pixels are of Pillow's mode {image.mode!r}, not of 8 bits a channel"
                )
            image = image.convert("L" if channels == 1 else "RGB")
            if size is not None and (image.height, image.width) != size:
                image = image.resize((size[1], size[0]), Image.Resampling[resample.upper()])
            return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise ValueError(f"Image {file} cannot be read: {error}.") from error


def _read_arrays(path: Path) -> Images:
    arrays = _load_arrays(path)
    found = [pair for pair in ARRAYS if set(pair) <= arrays.keys()]
    if not found:
        wanted = " or ".join(f"{x} and {y}" for x, y in ARRAYS)
        raise ValueError(f"{path} needs the arrays {wanted}, and has {sorted(arrays)}.")
    (x, y), *_ = found
    pixels, labels = arrays[x], arrays[y]
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path}: {x} must be uint8, pixels from 0 to 255, got {pixels.dtype}.")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(
            f"{path}: {x} must be [N, H, W], or [N, H, W, C] with 1 or 3 channels last, got "
            f"{arrays[x].shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path}: {y} must be whole numbers, got {labels.dtype}.")
    if labels.shape != pixels.shape[:1]:
        raise ValueError(
            f"{path}: {x} has {len(pixels)} images and {y} is {labels.shape}; each image needs one "
            "label."
        )
    names = _names(path, arrays, int(labels.max()))
    if labels.min() < 0 or labels.max() >= len(names):
        at = int(np.argmax((labels < 0) | (labels >= len(names))))
        raise ValueError(
            f"{path}: {y}[{at}] is {labels[at]}, outside the {len(names)} classes from 0 on."
        )
    return Images(pixels, labels.astype(np.int32), names, path.name)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # A file of our own: numpy leaves one that it opened open where the archive is damaged.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds one array, not an archive of several")
            return {name: file[name] for name in file.files}
    except (*_DAMAGED, zipfile.BadZipFile, NotImplementedError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


_MOST_CLASSES = 1 << 20
"""Of arrays without names: a label above is a mistake, not a class."""


def _names(path: Path, arrays: Mapping[str, np.ndarray], most: int) -> tuple[str, ...]:
    """The names that an `.npz` gives its classes, or their numbers."""
    if "names" not in arrays:
        return tuple(str(index) for index in range(min(max(most + 1, 1), _MOST_CLASSES)))
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) == 0:
        raise ValueError(f"{path}: names must be a list of strings, got {names.dtype}.")
    return tuple(names.tolist())
