"""A small random vision transformer in memory, and images for it."""

import numpy as np

from gossamer.data import ImageProcessing, Images
from gossamer.loading import Checkpoint, Tensor
from gossamer.models import ViTConfig, parameter_shapes

CONFIG = ViTConfig(
    image_size=(12, 12),
    patch_size=(4, 4),
    channels=1,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_classes=10,
    norm_epsilon=1e-6,
)
PROCESSING = ImageProcessing(size=(12, 12), mean=(0.5,), std=(0.25,))


def tiny_vit(config=CONFIG, seed=0, **fields):
    """Norm scales near 1, kernels that keep the size of what they multiply."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        if path.endswith("scale"):
            return 1 + 0.1 * rng.normal(size=shape)
        return rng.normal(size=shape) / (np.sqrt(shape[0]) if path.endswith("kernel") else 5)

    weights = {
        path: draw(path, shape).astype(np.float32)
        for path, shape in parameter_shapes(config).items()
    }
    return Checkpoint(
        config=config,
        tensors={
            path: Tensor(weight.shape, weight.dtype, lambda weight=weight: weight)
            for path, weight in weights.items()
        },
        tokenizer=None,
        source={"name": "tiny-vit", "format": "memory"},
        hf_config=config.to_hf(),
        **{"image_processing": PROCESSING, **fields},
    )


def random_images(count=13, seed=1, config=CONFIG):
    """Images of smooth ramps and noise, so that pixels are correlated as in pictures."""
    rng = np.random.default_rng(seed)
    height, width = config.image_size
    ramps = rng.uniform(-9, 9, (count, 1, 1, 1)) * np.arange(width)[:, None]
    noise = rng.normal(0, 20, (count, height, width, config.channels))
    pixels = np.clip(rng.uniform(60, 200, (count, 1, 1, 1)) + ramps + noise, 0, 255)
    labels = rng.integers(0, config.num_classes, count).astype(np.int32)
    names = tuple(str(index) for index in range(config.num_classes))
    return Images(pixels.astype(np.uint8), labels, names, "ramps")
