"""Handwritten digits of scikit-learn, and a vision transformer of Flax Linen modules."""

import functools
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Model", "Run", "accuracy", "batches", "cross_entropy", "digits", "options"]

KERNELS = r"params\.encoderblock_\d+\.MlpBlock_0\.Dense_\d\.kernel"


class MlpBlock(nn.Module):
    """The transformer's feed-forward layers."""

    mlp_dim: int
    dot_general: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dot_general=self.dot_general)
        return dense(x.shape[-1])(nn.gelu(dense(self.mlp_dim)(x)))


class EncoderBlock(nn.Module):
    """Attention, then the feed-forward layers, each after a norm."""

    mlp_dim: int
    num_heads: int
    dot_general: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + nn.MultiHeadDotProductAttention(self.num_heads)(nn.LayerNorm()(x))
        return x + MlpBlock(self.mlp_dim, self.dot_general)(nn.LayerNorm()(x))


class Model(nn.Module):
    """Logits of images `[B, 8, 8, 1]`.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, with the mean of all patches for the class.
    """

    num_classes: int
    patch_size: tuple[int, int]
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    dot_general: Any = jax.lax.dot_general

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, self.patch_size, strides=self.patch_size)(images)
        x = x.reshape(len(x), -1, self.width)
        shape = (1, *x.shape[1:])
        x = x + self.param("pos_embedding", nn.initializers.normal(self.width**-0.5), shape)
        for i in range(self.depth):
            name = f"encoderblock_{i}"
            x = EncoderBlock(self.mlp_dim, self.num_heads, self.dot_general, name=name)(x)
        return nn.Dense(self.num_classes, name="head")(nn.LayerNorm()(x).mean(axis=1))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 8, 8, 1] in [-1, 1] and labels, shuffled; the first 400 are held out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images[order] / 8 - 1).astype(np.float32).reshape(-1, 8, 8, 1)
    return images, labels[order].astype(np.int32)


def batches(steps: int, batch_size: int):
    """Random images, shifted by up to a pixel each way, with their labels."""
    images, labels = digits()
    wider = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        chosen = rng.integers(400, len(labels), batch_size)
        shifts = rng.integers(0, 3, (batch_size, 2))
        crops = [wider[i, y : y + 8, x : x + 8] for i, (y, x) in zip(chosen, shifts, strict=True)]
        yield {"image": np.stack(crops), "label": labels[chosen]}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(model: Model, params: Any) -> float:
    """On the images that are held out."""
    images, labels = digits()
    logits = jax.jit(model.apply)(params, images[:400])
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == labels[:400]))
