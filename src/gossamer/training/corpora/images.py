"""Labelled images, prepared as the model takes them."""

import dataclasses

import numpy as np

from gossamer.data import ImageProcessing, Images, read_images
from gossamer.loading import Checkpoint
from gossamer.models import ViTConfig
from gossamer.training.config import ImagesConfig, TrainingConfig
from gossamer.training.corpora.corpus import Corpus, spread
from gossamer.training.losses import LabelledImages


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCorpus(Corpus):
    """Images and their classes.

    Attributes:
        learned: to learn from.
        held_out: to evaluate on.
        processing: what makes numbers of pixels.
    """

    learned: Images
    held_out: Images
    processing: ImageProcessing

    @classmethod
    def read(cls, data: ImagesConfig) -> "ImageCorpus":
        """Reads images; pixels become numbers with mean 0 and deviation 1 over those learned from.

        Raises:
            ValueError: they cannot be read, differ in size, or have labels that are not theirs.
        """
        images = read_images(data.images, size=data.size, channels=data.channels)
        learned, held_out = images.split(data.held_out, seed=0)
        return cls(learned=learned, held_out=held_out, processing=standardized(learned))

    def check(self, config: TrainingConfig) -> None:
        """Raises ValueError where a run cannot learn from it or be evaluated on it."""
        model = config.model
        assert isinstance(model, ViTConfig)
        faults = []
        shape, wanted = self.learned.pixels.shape[1:], (*model.image_size, model.channels)
        if shape != wanted:
            faults.append(
                f"they have {shape} pixels and channels, and the model takes {wanted}: give a size "
                "or a number of channels for files, or change the model's"
            )
        if len(self.learned.names) > model.num_classes:
            faults.append(
                f"they are of {len(self.learned.names)} classes, and the model tells only "
                f"{model.num_classes} apart"
            )
        if faults:
            raise ValueError(f"The images {self.learned.source!r} do not do: {'; '.join(faults)}.")

    def examples(self, config: TrainingConfig) -> "Labelled":
        """Images one at a time."""
        del config
        return Labelled(self.learned, self.processing)

    def complete(self, checkpoint: Checkpoint) -> Checkpoint:
        """With the names of the classes, and how images are prepared."""
        names = self.learned.names
        # A class that no image has keeps the name that the config gave it.
        named = {str(index): name for index, name in enumerate(names)}
        labels = {**checkpoint.hf_config["id2label"], **named}
        config = {
            **checkpoint.hf_config,
            "id2label": labels,
            "label2id": {name: int(index) for index, name in labels.items()},
        }
        return dataclasses.replace(checkpoint, hf_config=config, image_processing=self.processing)

    def evaluation(self, config: TrainingConfig) -> LabelledImages:
        """Images held out."""
        chosen = spread(np.arange(len(self.held_out)), config.evaluation_windows)
        images = self.held_out.take(chosen)
        return LabelledImages(self.processing.normalize(images.pixels), images.labels)


class Labelled:
    """Images and their classes, one at a time."""

    def __init__(self, images: Images, processing: ImageProcessing) -> None:
        self._images, self._processing = images, processing

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledImages:
        pixels = self._images.pixels[index : index + 1]
        return LabelledImages(self._processing.normalize(pixels)[0], self._images.labels[index])


def standardized(images: Images) -> ImageProcessing:
    """What gives each channel of these images mean 0 and deviation 1.

    Example:
        >>> pixels = np.array([[[[0]], [[255]]]], np.uint8)
        >>> processing = standardized(Images(pixels, np.array([0], np.int32), ("a",), "two pixels"))
        >>> print(processing.mean, processing.std)
        (0.5,) (0.5,)
    """
    # By how often each value occurs: no copy of the pixels as floats.
    channels = np.moveaxis(images.pixels, -1, 0).reshape(images.pixels.shape[-1], -1)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in channels])
    shares = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    height, width = images.pixels.shape[1:3]
    return ImageProcessing(
        size=(height, width),
        mean=tuple(mean.tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),  # a channel of one value stays as it is
    )
