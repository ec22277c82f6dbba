"""Handwritten digits of scikit-learn, and a network whose parameters are lists and dicts."""

import itertools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Run", "accuracy", "batches", "initialize", "loss", "options"]

KERNELS = r"layers\.[01]\.kernel"  # all but the last, which has few weights
WIDTHS = (64, 256, 256, 10)
BATCH = 128


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


def initialize(key: jax.Array) -> dict:
    """Kernels `[in, out]` and biases."""
    sizes = list(itertools.pairwise(WIDTHS))
    keys = jax.random.split(key, len(sizes))
    kernel = jax.nn.initializers.he_normal()
    return {
        "layers": [
            {"kernel": kernel(key, size), "bias": jnp.zeros(size[1])}
            for key, size in zip(keys, sizes, strict=True)
        ]
    }


def logits(params: dict, x: jax.Array) -> jax.Array:
    *hidden, last = params["layers"]
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def loss(params: dict, batch: tuple) -> jax.Array:
    images, labels = batch
    scores = logits(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def accuracy(params: dict) -> float:
    """On the images that are held out."""
    images, labels = digits()
    return float(jnp.mean(jnp.argmax(logits(params, images[:400]), axis=-1) == labels[:400]))
