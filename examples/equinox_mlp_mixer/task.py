"""Handwritten digits of scikit-learn as sixteen patches, and an MLP-Mixer of Equinox modules."""

import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Mixer", "Run", "accuracy", "batches", "loss", "options"]

KERNELS = r"blocks\.\d+\.(tokens|channels)\.layers\.\d+\.weight"  # [out, in]
PATCHES, WIDTH, DEPTH, BATCH = 16, 64, 2, 64


class Block(eqx.Module):
    """Mixes what stands at one channel, then what stands at one patch."""

    tokens: eqx.nn.MLP
    channels: eqx.nn.MLP
    norms: list[eqx.nn.LayerNorm]

    def __init__(self, key: jax.Array) -> None:
        first, second = jax.random.split(key)
        gelu = jax.nn.gelu
        self.tokens = eqx.nn.MLP(PATCHES, PATCHES, 64, 1, activation=gelu, key=first)
        self.channels = eqx.nn.MLP(WIDTH, WIDTH, 2 * WIDTH, 1, activation=gelu, key=second)
        self.norms = [eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)]

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + jax.vmap(self.tokens)(jax.vmap(self.norms[0])(x).T).T
        return x + jax.vmap(self.channels)(jax.vmap(self.norms[1])(x))


class Mixer(eqx.Module):
    """Logits of one image of 8 by 8 pixels.

    Source: Tolstikhin et al. 2021, arXiv 2105.01601.
    """

    stem: eqx.nn.Linear
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        stem, head, *blocks = jax.random.split(key, 2 + DEPTH)
        self.stem = eqx.nn.Linear(64 // PATCHES, WIDTH, key=stem)
        self.blocks = [Block(key) for key in blocks]
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.head = eqx.nn.Linear(WIDTH, 10, key=head)

    def __call__(self, image: jax.Array) -> jax.Array:
        patches = image.reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(PATCHES, -1)
        x = jax.vmap(self.stem)(patches)
        for block in self.blocks:
            x = block(x)
        return self.head(jax.vmap(self.norm)(x).mean(axis=0))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 64] in [0, 1] and labels [1797], shuffled; the first 400 are held out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)


def batches(steps: int):
    """Random images with their labels."""
    images, labels = digits()
    rng = np.random.default_rng(1)
    for _ in range(steps):
        chosen = rng.integers(400, len(labels), BATCH)
        yield images[chosen], labels[chosen]


def loss(model: Mixer, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = jax.vmap(model)(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(model: Mixer) -> float:
    """On the images that are held out."""
    images, labels = digits()
    logits = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))(model, images[:400])
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == labels[:400]))
