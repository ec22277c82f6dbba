"""Rows as integer codes, and their exact products with the codes of a kernel."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, UInt32

from gossamer.quantization.formats import Codes
from gossamer.quantization.integers import Int

LONGEST_SUM = 65536
"""Products of a code and a code less its zero point, below 2^15, that an int32 surely sums."""


class Rows(NamedTuple):
    """Integers with a scale a row, or one for all: the value is `codes * scales`."""

    codes: Int8[Array, "rows in"]
    scales: Float[Array, "#rows 1"]

    def decode(self) -> Float[Array, "rows in"]:
        """The values, float32."""
        return self.codes.astype(jnp.float32) * self.scales


@runtime_checkable
class CodesProduct(Protocol):
    """Multiplies codes by codes: integer sums, scaled and added group by group in float32."""

    def __call__(self, rows: Int8[Array, "rows in"], kernel: Codes, /) -> Float[Array, "rows out"]:
        """What `multiply_codes` computes."""
        ...


def encode_rows(
    x: Float[Array, "rows in"], format: Int, noise: Float[Array, "rows in"] | None = None
) -> Rows:
    """Rounds every row with a scale of its own: `format.encode(x.T)`, read along rows.

    Args:
        x: finite values, any float dtype; computed in float32.
        format: symmetric, without groups.
        noise: uniform in [0, 1) for stochastic rounding; None rounds to nearest.

    Example:
        >>> encode_rows(jnp.array([[7.0, -1.4], [0.7, 0.1]]), Int(4)).codes
        Array([[ 7, -1],
               [ 7,  1]], dtype=int8)
    """
    x = x.astype(jnp.float32)
    # A row at a time: the transpose takes three to ten times as long on a CPU.
    scales = jax.vmap(lambda row: format.grid(row[None, :, None])[0])(x).reshape(-1, 1)
    return Rows(format.round(x, scales, None, noise), scales)


def encode_tensor(x: Float[Array, "rows in"], format: Int) -> Rows:
    """Rounds all rows with one scale.

    Example:
        >>> encode_tensor(jnp.array([[7.0, -1.4], [0.7, 0.1]]), Int(4)).codes
        Array([[ 7, -1],
               [ 1,  0]], dtype=int8)
    """
    x = x.astype(jnp.float32)
    scales = format.grid(x.reshape(1, -1, 1))[0]
    return Rows(format.round(x, scales, None), scales)


def uniform_noise(key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "*dims"]:
    """Uniform numbers in [0, 1) of 24 bits, for rounding: a hash of the index, seeded by `key`.

    `jax.random.uniform` takes longer than the integer product that the numbers are for: 37 ms for
    2048 x 1536 on one core, this 0.9.

    Source: the hash is the 32-bit `lowbias32` of Wellons 2018 (hash-prospector); the second seed
    between its rounds is ours.
    """
    seeds: UInt32[Array, " 2"] = jax.random.bits(key, (2,), jnp.uint32)
    hashed = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        hashed = hashed * jnp.uint32(shape[axis]) + jax.lax.broadcasted_iota(
            jnp.uint32, shape, axis
        )
    hashed = hashed + seeds[0]
    hashed = (hashed ^ (hashed >> 16)) * jnp.uint32(0x7FEB352D)
    hashed = ((hashed ^ seeds[1]) ^ (hashed >> 15)) * jnp.uint32(0x846CA68B)
    hashed = hashed ^ (hashed >> 16)
    return (hashed >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def multiply_codes(rows: Int8[Array, "rows in"], kernel: Codes) -> Float[Array, "rows out"]:
    r"""Multiplies integers by integers, exactly, and scales the sums once per group, in order.

    .. math:: y_{bo} = \sum_g t_{go} \sum_{i \in g} q_{bi} (k_{io} - z_{go})

    Args:
        rows: codes q.
        kernel: codes k, scales t and zero points z.

    Raises:
        ValueError: a group has more elements than an int32 surely sums.

    Example:
        >>> kernel = Int(4).encode(jnp.array([[7.0], [-3.0]]))
        >>> multiply_codes(jnp.array([[2, 1]], jnp.int8), kernel)
        Array([[11.]], dtype=float32)
    """
    groups, out = kernel.scales.shape
    size = rows.shape[1] // groups
    check_sum(size)
    zeros = jnp.zeros((groups, 1), jnp.int8) if kernel.zeros is None else kernel.zeros
    parts = (
        jnp.swapaxes(rows.reshape(-1, groups, size), 0, 1),
        kernel.codes.reshape(groups, size, out),
        kernel.scales,
        zeros,
    )

    def share(part: tuple[Array, Array, Array, Array]) -> Float[Array, "rows out"]:
        q, k, scale, zero = part
        sums = jnp.matmul(q, k, preferred_element_type=jnp.int32)
        if kernel.zeros is not None:
            sums = sums - q.astype(jnp.int32).sum(1, keepdims=True) * zero.astype(jnp.int32)
        return sums.astype(jnp.float32) * scale

    # Group after group, as the native kernels do. One batched product takes 333 ms on a CPU where
    # this takes 75 (2048 x 576 x 1536, groups of 64); products unrolled 155.
    first = share(jax.tree.map(lambda part: part[0], parts))
    if groups == 1:
        return first
    rest = jax.tree.map(lambda part: part[1:], parts)
    return jax.lax.scan(lambda y, part: (y + share(part), None), first, rest)[0]


def check_sum(size: int) -> None:
    """Raises where an int32 might not hold a sum of `size` products of codes."""
    if size > LONGEST_SUM:
        raise ValueError(
            f"Integer sums of {size} products may overflow; a group, or the axis that is summed, "
            f"has at most {LONGEST_SUM} elements: choose a smaller group."
        )
