"""Masks of a kernel `[in, out]` by the simple scores: magnitude, Wanda, random. True means keep.

N:M groups, blocks and channels lie along `in`. Ties keep the lower index, as everywhere here.
"""

import functools

import jax
from jaxtyping import Array, Bool, Float

from gossamer.sparsity import Pattern, Unstructured, magnitude, random, wanda


@functools.partial(jax.jit, static_argnames="pattern")
def magnitude_mask(kernel: Float[Array, "in out"], pattern: Pattern) -> Bool[Array, "in out"]:
    """Keeps the largest weights; `Unstructured` compares all weights of the kernel.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> magnitude_mask(jnp.array([[3.0], [-4.0], [0.5], [1.0]]), NM(2, 4)).ravel()
        Array([ True,  True, False, False], dtype=bool)
    """
    return pattern.mask(magnitude(kernel), 0)


@functools.partial(jax.jit, static_argnames="pattern")
def wanda_mask(
    kernel: Float[Array, "in out"], input_norm: Float[Array, " in"], pattern: Pattern
) -> Bool[Array, "in out"]:
    """Keeps the weights with the highest magnitude x input norm; no weight is changed.

    `Unstructured` compares within each output, which loses floor(sparsity x in) weights.

    Args:
        kernel: the dense weights.
        input_norm: root of the sum, or mean, of the squares of each input, >= 0.
        pattern: what the mask looks like.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> norm = jnp.array([1.0, 1.0, 9.0, 1.0])
        >>> wanda_mask(jnp.array([[3.0], [-4.0], [0.5], [1.0]]), norm, NM(2, 4)).ravel()
        Array([False,  True,  True, False], dtype=bool)

    Source: Sun et al. 2023, arXiv 2306.11695, and its released code. On ties the released code
    prunes the lower index (a stable ascending sort); here the lower index is kept.
    """
    scores = wanda(kernel, input_norm)
    if isinstance(pattern, Unstructured):
        return jax.vmap(pattern.mask, in_axes=(1, None), out_axes=1)(scores, 0)
    return pattern.mask(scores, 0)


@functools.partial(jax.jit, static_argnames="pattern")
def random_mask(
    kernel: Float[Array, "in out"], key: jax.Array, pattern: Pattern
) -> Bool[Array, "in out"]:
    """Keeps weights drawn from `key`: the baseline that every score must beat.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> int(random_mask(jnp.ones((8, 3)), jax.random.key(0), NM(2, 4)).sum())
        12
    """
    return pattern.mask(random(kernel, key), 0)
