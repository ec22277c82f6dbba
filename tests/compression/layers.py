"""A layer with correlated, uneven inputs, and the errors that compressing it makes."""

import functools

import jax.numpy as jnp
import numpy as np

from tests.compression import oracle
from tests.compression.golden_layer import INPUTS, KERNEL


def golden_error(values) -> float:
    """Squared output error on the golden layer."""
    return float(np.sum((INPUTS @ (np.asarray(values) - KERNEL)) ** 2))


@functools.cache
def layer(size: int = 256, out: int = 96, *, dead: tuple[int, ...] = ()):
    """A kernel, and the Gram matrix of correlated inputs with heavy-tailed sizes."""
    rng = np.random.default_rng(7)
    mixing = rng.normal(size=(size // 4, size))
    x = rng.normal(size=(4 * size, size // 4)) @ mixing + 2 * rng.normal(size=(4 * size, size))
    x *= np.exp(rng.normal(size=size))
    x[:, list(dead)] = 0
    kernel = rng.normal(size=(size, out)) / np.exp(0.5 * rng.normal(size=(size, 1)))
    return jnp.asarray(kernel, jnp.float32), jnp.asarray(x.T @ x, jnp.float32)


def output_error(values, kernel, gram) -> float:
    """Squared, over all tokens and outputs."""
    w, compressed, h = (np.asarray(a, np.float64) for a in (kernel, values, gram))
    return oracle.output_error(w.T, compressed.T, h)
