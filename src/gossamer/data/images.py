"""Labelled images as arrays, and how pixels become what a model was trained on."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt8

from gossamer.data.json_files import parse_json

Resample: TypeAlias = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""How images are resized, by the names of Pillow."""

PREPROCESSOR = "preprocessor_config.json"
"""The file beside `config.json` that tells how images are prepared."""

FILTERS: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Hugging Face writes a filter as its number in this list, which is Pillow's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageProcessing:
    r"""How pixels from 0 to 255 become a model's input: :math:`(p / 255 - \mu) / \sigma`.

    Attributes:
        size: height and width that images are resized to, as wholes: nothing is cut off.
        mean: of each channel.
        std: of each channel.
        resample: how files are resized.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not min(self.std) > 0:
            raise ValueError(
                "ImageProcessing needs a mean and a positive standard deviation for each channel, "
                f"got {self.mean} and {self.std}."
            )

    def normalize(self, pixels: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N H W C"]:
        """What a model is given.

        Raises:
            ValueError: the images have another size or other channels.
        """
        if pixels.shape[1:] != (*self.size, len(self.mean)):
            height, width, channels = pixels.shape[1:]
            raise ValueError(
                f"The model takes images of {self.size[0]} x {self.size[1]} pixels and "
                f"{len(self.mean)} channels (height x width), got {height} x {width} pixels and "
                f"{channels} channels: resize them, or give a folder of files, which are resized "
                "as they are read."
            )
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (pixels.astype(np.float32) / np.float32(255) - mean) / std

    @classmethod
    def from_hf(cls, data: Mapping[str, Any], *, where: str = PREPROCESSOR) -> "ImageProcessing":
        """Reads the fields of a `preprocessor_config.json` of a ViT.

        Raises:
            ValueError: fields are missing, malformed or ask for what is not supported (cropping,
                resizing by one edge, another range of pixels); all are named.
        """
        faults = [
            f"{name} must be absent or {accepted}, got {data[name]!r}"
            for name, accepted in (
                ("do_resize", True),
                ("do_rescale", True),
                ("do_center_crop", False),
                ("do_pad", False),
            )
            if data.get(name, accepted) not in (accepted, None)
        ]
        factor = data.get("rescale_factor")
        if factor is not None and (not _is_number(factor) or abs(factor * 255 - 1) > 1e-6):
            faults.append(f"rescale_factor must be 1 / 255, got {factor!r}")
        size = data.get("size")
        if isinstance(size, Mapping) and set(size) == {"height", "width"}:
            size = (size["height"], size["width"])
        elif isinstance(size, int):
            size = (size, size)
        if not _is_size(size):
            faults.append(f"size must be a number or a height and a width, got {size!r}")
        # Where nothing is normalized, pixels stay in the range from 0 to 1.
        normalized = data.get("do_normalize", True)
        means, deviations = data.get("image_mean"), data.get("image_std")
        if not normalized:
            means = [0.0] * len(means or [0, 0, 0])
            deviations = [1.0] * len(means)
        for name, values in (("image_mean", means), ("image_std", deviations)):
            if not _are_numbers(values):
                faults.append(f"{name} must be a list of numbers, got {values!r}")
        number = data.get("resample", 2)
        if number not in range(len(FILTERS)):
            faults.append(f"resample must be one of Pillow's 0 to {len(FILTERS) - 1}: {number!r}")
        if faults:
            raise ValueError(f"{where} cannot be used: {'; '.join(faults)}.")
        assert size is not None
        assert means is not None
        assert deviations is not None
        return cls(
            size=(size[0], size[1]),
            mean=tuple(float(value) for value in means),
            std=tuple(float(value) for value in deviations),
            resample=FILTERS[number],
        )

    def to_hf(self) -> dict[str, Any]:
        """A `preprocessor_config.json` that transformers reads."""
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.size[0], "width": self.size[1]},
            "resample": FILTERS.index(self.resample),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @classmethod
    def from_folder(cls, folder: str | Path) -> "ImageProcessing | None":
        """That of a model's folder; None where it has no `preprocessor_config.json`.

        Raises:
            ValueError: the file is damaged, or see `from_hf`.
        """
        path = Path(folder) / PREPROCESSOR
        if not path.is_file():
            return None
        return cls.from_hf(parse_json(path, path.read_bytes()), where=str(path))


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one size with the classes they belong to.

    Attributes:
        pixels: 0 to 255.
        labels: the class of each, a place in `names`.
        names: of the classes.
        source: where they come from, for reports.
    """

    pixels: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"]
    names: tuple[str, ...]
    source: str = "images"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | Int[np.ndarray, " count"]) -> "Images":
        """Some of the images, in the order of `indices`."""
        chosen = np.asarray(indices, np.int64)
        return dataclasses.replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen])

    def split(self, held_out: float, seed: int) -> tuple["Images", "Images"]:
        """Cuts the images in two, the same share of every class in each, rounded.

        Args:
            held_out: the share of the second part, between 0 and 1.
            seed: decides which images those are.

        Returns:
            What is to learn from, and what is held out; each in the order of the source.

        Raises:
            ValueError: the share is not between 0 and 1, or leaves one part empty.

        Example:
            >>> pixels = np.zeros((8, 1, 1, 1), np.uint8)
            >>> images = Images(pixels, np.array([0, 1] * 4, np.int32), ("a", "b"))
            >>> learned, held_out = images.split(0.25, seed=0)
            >>> len(learned), len(held_out)
            (6, 2)
        """
        if not 0 < held_out < 1:
            raise ValueError(f"The share held out must be between 0 and 1, got {held_out}.")
        draw = np.random.default_rng(seed)
        second = np.zeros(len(self), bool)
        for label in range(len(self.names)):
            mine = draw.permutation(np.flatnonzero(self.labels == label))
            second[mine[: round(len(mine) * held_out)]] = True
        if second.all() or not second.any():
            raise ValueError(
                f"A share of {held_out} of {len(self)} images in {len(self.names)} classes leaves "
                "one part empty; give more images or another share."
            )
        return self.take(np.flatnonzero(~second)), self.take(np.flatnonzero(second))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and len(values) > 0 and all(map(_is_number, values))


def _is_size(size: object) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(each) is int and each > 0 for each in size)
    )
