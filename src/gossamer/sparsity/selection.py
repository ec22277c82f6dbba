"""The n highest of many scores without sorting them.

Only comparisons are summed, so arrays may be sharded: what devices exchange are counts.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32


def count_marks(marks: Bool[Array, "*dims"]) -> Int[Array, ""]:
    """How many marks are True.

    XLA sums booleans as an array of int32, at a quarter of the speed on a CPU: here the ones in
    words of four booleans are counted.

    Example:
        >>> int(count_marks(jnp.array([[True, False, False, True]])))
        2
    """
    if marks.ndim == 0 or marks.shape[-1] % 4:
        return jnp.sum(marks, dtype=jnp.int32)
    fours = marks.astype(jnp.uint8).reshape(*marks.shape[:-1], marks.shape[-1] // 4, 4)
    words = jax.lax.bitcast_convert_type(fours, jnp.uint32)
    return jnp.sum(jax.lax.population_count(words), dtype=jnp.int32)


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


def lowest_of_highest(
    bits: UInt32[Array, "*dims"] | Sequence[UInt32[Array, "..."]], count: int | Int[Array, ""]
) -> UInt32[Array, ""]:
    """The lowest of the `count` highest numbers.

    It is found bit by bit: 6 ms for 576 x 1536 numbers on a CPU, where a stable argsort takes 210.

    Args:
        bits: what `score_bits` makes of scores; several arrays count as one.
        count: 1 to the number of them; 0 gives the highest number there is.

    Example:
        >>> int(lowest_of_highest(jnp.array([3, 9, 5], jnp.uint32), 2))
        5
    """
    arrays = [bits] if isinstance(bits, jax.Array) else list(bits)

    def lower_bit(place: Int[Array, ""], found: UInt32[Array, ""]) -> UInt32[Array, ""]:
        higher = found | (jnp.uint32(1) << (31 - place).astype(jnp.uint32))
        above = sum(count_marks(array >= higher) for array in arrays)
        return jnp.where(above >= count, higher, found)

    return jax.lax.fori_loop(0, 32, lower_bit, jnp.uint32(0))


def keep_highest(bits: UInt32[Array, "*dims"], count: int | Int[Array, ""]) -> Bool[Array, "*dims"]:
    """Marks the `count` highest numbers, ties to the lower index in row-major order.

    Args:
        bits: what `score_bits` makes of scores.
        count: 0 to the number of them; may be traced.

    Example:
        >>> keep_highest(jnp.array([3, 9, 5, 5], jnp.uint32), 2)
        Array([False,  True,  True, False], dtype=bool)
    """
    return keep_highest_of_all({"": bits}, count)[""]


def keep_highest_of_all(
    bits: Mapping[str, UInt32[Array, "..."]], count: int | Int[Array, ""]
) -> dict[str, Bool[Array, "..."]]:
    """Marks the `count` highest numbers of many arrays, ties to the array that comes first.

    Example:
        >>> two = {"a": jnp.array([3, 9], jnp.uint32), "b": jnp.array([9, 1], jnp.uint32)}
        >>> keep_highest_of_all(two, 2)["b"]
        Array([ True, False], dtype=bool)
    """
    lowest = lowest_of_highest(list(bits.values()), count)
    above = sum(count_marks(array > lowest) for array in bits.values())
    room, keep = count - above, {}
    for name, array in bits.items():
        tied = array == lowest
        keep[name] = (array > lowest) | _first(tied, room)
        room = room - count_marks(tied)
    return keep


def _first(marks: Bool[Array, "*dims"], count: int | Int[Array, ""]) -> Bool[Array, "*dims"]:
    """The first `count` marks in row-major order.

    Ties are few or none, so that mostly nothing is to be done; else the place behind the last is
    found bit by bit as well: a running count would gather an array that is cut along its rows.
    """

    def cut() -> Bool[Array, "*dims"]:
        places = jnp.zeros(marks.shape, jnp.uint32)
        for axis in range(marks.ndim):
            stride = jnp.uint32(math.prod(marks.shape[axis + 1 :]))
            places += stride * jax.lax.broadcasted_iota(jnp.uint32, marks.shape, axis)

        def raise_bit(done: Int[Array, ""], end: UInt32[Array, ""]) -> UInt32[Array, ""]:
            later = end | (jnp.uint32(1) << (length - 1 - done).astype(jnp.uint32))
            inside = count_marks(marks & (places < later))
            return jnp.where(inside <= count, later, end)

        length = marks.size.bit_length()
        return marks & (places < jax.lax.fori_loop(0, length, raise_bit, jnp.uint32(0)))

    return jax.lax.cond(count_marks(marks) <= count, lambda: marks, cut)
