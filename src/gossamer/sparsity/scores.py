"""Scores: how much each weight of a kernel `[in, out]` matters; a pattern keeps the highest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def magnitude(kernel: Float[Array, "in out"]) -> Float[Array, "in out"]:
    """The absolute value of each weight.

    Example:
        >>> magnitude(jnp.array([[-2.0], [1.0]]))
        Array([[2.],
               [1.]], dtype=float32)
    """
    return jnp.abs(kernel)


def wanda(
    kernel: Float[Array, "in out"], input_norm: Float[Array, " in"]
) -> Float[Array, "in out"]:
    r"""Weight magnitude times the norm of the input that it multiplies.

    .. math:: S_{ij} = |W_{ij}| \, \lVert X_i \rVert_2

    Args:
        kernel: the weights.
        input_norm: root of the sum (or mean, the order is the same) of the squares of each input
            over the calibration tokens, >= 0.

    Example:
        >>> wanda(jnp.array([[-2.0], [1.0]]), jnp.array([1.0, 3.0]))
        Array([[2.],
               [3.]], dtype=float32)

    Source: Sun et al. 2023, arXiv 2306.11695, eq. 1. Their kernels are `[out, in]`.
    """
    return jnp.abs(kernel) * input_norm[:, None]


def random(kernel: Float[Array, "in out"], key: jax.Array) -> Float[Array, "in out"]:
    """Uniform scores in [0, 1) from `key`: the baseline that any other score must beat."""
    return jax.random.uniform(key, kernel.shape)
