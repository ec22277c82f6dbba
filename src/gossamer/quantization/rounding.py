"""Rounding to whole steps: to nearest, or by chance."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def round_steps(
    steps: Float[Array, "*dims"], noise: Float[Array, "*dims"] | None = None
) -> Float[Array, "*dims"]:
    """Rounds numbers of steps to whole ones; signs stay, those of zeros too.

    Args:
        steps: any numbers below 2^23.
        noise: uniform in [0, 1): a number whose fraction and noise add up to 1 or more goes away
            from 0, so the mean of many draws is the number. None is to nearest, ties to even.

    Example:
        >>> round_steps(jnp.array([2.5, 2.3, -2.3]), jnp.array([0.4, 0.71, 0.71]))
        Array([ 2.,  3., -3.], dtype=float32)

    Source: Gupta et al. 2015, arXiv 1502.02551, for the idea; in sign and magnitude here.
    """
    if noise is None:
        return jnp.round(steps)
    # Not floor(|steps| + noise): beside a large number that sum could round up to the next.
    size = jnp.abs(steps)
    whole = jnp.floor(size)
    beyond = size - whole + noise >= 1
    return jnp.copysign(whole + beyond.astype(whole.dtype), steps)
