"""The images whose activations guide the compression of a vision model."""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float

from gossamer.data import ImageProcessing, Images
from gossamer.models import ModelConfig, classifier_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCalibration:
    """Normalized images and where they come from; their labels have no say.

    Attributes:
        images: name of the source.
        inputs: what the model is given.
    """

    images: str
    inputs: Float[np.ndarray, "N H W C"]

    @classmethod
    def from_images(
        cls, images: Images, processing: ImageProcessing, *, count: int, seed: int
    ) -> "ImageCalibration":
        """Draws images, none twice.

        Args:
            images: of the model's size.
            processing: how the model's images are prepared.
            count: how many; all, where there are fewer.
            seed: decides which.

        Raises:
            ValueError: `count` is not positive, or the images are of another size.
        """
        if count < 1:
            raise ValueError(f"Calibration needs at least 1 image, got {count}.")
        chosen = np.random.default_rng(seed).permutation(len(images))[:count]
        pixels = images.take(chosen).pixels
        return cls(images=images.source, inputs=processing.normalize(pixels))

    def check(self, config: ModelConfig) -> None:
        """Raises ValueError where the images are not for this model."""
        vision = classifier_config(config)
        taken = (*vision.image_size, vision.channels)
        if self.inputs.shape[1:] != taken:
            raise ValueError(
                f"Calibration images are of height, width and channels {self.inputs.shape[1:]}, "
                f"and the model takes {taken}."
            )

    def describe(self) -> dict[str, str | int]:
        """Plain data for reports and provenance; the checksum is of the inputs as float32."""
        count, height, width, _ = self.inputs.shape
        return {
            "images": self.images,
            "count": count,
            "height": height,
            "width": width,
            "sha256": hashlib.sha256(self.inputs.astype("<f4").tobytes()).hexdigest(),
        }
