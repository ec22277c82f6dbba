"""The bit layout of packed kernels: planes of small fields, in tiles of 16 outputs.

A kernel `[in, out]` is cut into tiles of 16 consecutive outputs, its lanes. Each lane holds a list
of K fields of `bits` bits. A lane's fields fill 4-byte words; word w of lane l lies at byte
`64*w + 4*l` of the tile, so the 16 words of one w are a vector of 64 bytes. Field f of a word is
in byte `f % 4` at bit `bits * (f // 4)`: four consecutive fields are one bit position of the four
bytes. What does not fill a word, r < 4 bytes a lane, follows after the words, lane by lane.

Widths that are no power of two are split, low bits first: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2,
7 = 4 + 2 + 1; the parts of a tile follow one another. `docs/packed-layout.md` draws all of it.

Words are read as little-endian uint32 with the lanes last, so that the 16 lanes of every shift and
mask are one vector.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt, UInt8

LANES = 16
"""Outputs of a tile."""

Order: TypeAlias = Literal["windows", "bitmap"]
"""Where a word keeps its fields: four consecutive ones in four bytes, or bit after bit."""

_WORD_BYTES = 4


def parts(bits: int) -> tuple[int, ...]:
    """The powers of two that fields of `bits` bits are split in, the low bits' first.

    Example:
        >>> parts(7), parts(4)
        ((4, 2, 1), (4,))
    """
    return tuple(1 << i for i in range(4, -1, -1) if bits >> i & 1)


def lane_bytes(count: int, bits: int) -> int:
    """Bytes that `count` fields of `bits` bits take in one lane.

    Raises:
        ValueError: a part of the fields does not fill whole bytes.

    Example:
        >>> lane_bytes(16, 3)
        6
    """
    narrowest = parts(bits)[-1]
    if count * narrowest % 8:
        raise ValueError(
            f"{count} fields of {bits} bits for each output do not fill whole bytes; their number "
            f"must be a multiple of {8 // narrowest}."
        )
    return count * bits // 8


def pack_fields(
    fields: UInt[Array, "*lead count lanes"], bits: int, order: Order = "windows"
) -> UInt8[Array, "*lead bytes"]:
    """Packs the low `bits` bits of every field; the last axis are the lanes of one tile.

    Bitmaps are fields of 2, 4, 8 or 16 bits, one for a group, in order "bitmap".

    Raises:
        ValueError: the fields do not fill whole bytes.

    Example:
        >>> pack_fields(jnp.arange(8, dtype=jnp.uint8)[:, None], 4)  # one lane, one word
        Array([ 64,  81,  98, 115], dtype=uint8)
    """
    lane_bytes(fields.shape[-2], bits)
    planes, low = [], 0
    for width in parts(bits):
        planes.append(_pack_part((fields >> low) & ((1 << width) - 1), width, order))
        low += width
    return jnp.concatenate(planes, axis=-1) if len(planes) > 1 else planes[0]


def unpack_fields(
    plane: UInt8[Array, "*lead bytes"], bits: int, lanes: int = LANES, order: Order = "windows"
) -> UInt[Array, "*lead count lanes"]:
    """Reads back what `pack_fields` packed: uint8, or uint16 for fields of 16 bits.

    Example:
        >>> unpack_fields(jnp.array([0x40, 0x51, 0x62, 0x73], jnp.uint8), 4, lanes=1).ravel()
        Array([0, 1, 2, 3, 4, 5, 6, 7], dtype=uint8)
    """
    fields, start, low = None, 0, 0
    for width in parts(bits):
        size = plane.shape[-1] * width // bits
        part = _unpack_part(plane[..., start : start + size], width, lanes, order)
        fields = part if fields is None else fields | (part << low)
        start, low = start + size, low + width
    assert fields is not None
    return fields


def lane_index(bits: int, size: int) -> np.ndarray:
    """The bytes `[16, size / 16]` that hold each lane's fields in a tile of `size` bytes.

    Taken in this order they are a tile of one lane, which `unpack_fields(..., lanes=1)` reads.

    Example:
        >>> lane_index(8, 16 * 6)[1]  # one word and a tail of two bytes
        array([ 4,  5,  6,  7, 66, 67], dtype=int32)
    """
    lane = np.arange(LANES, dtype=np.int32)[:, None]
    columns, start = [], 0
    for width in parts(bits):
        per_lane = size * width // bits // LANES
        words, tail = divmod(per_lane, _WORD_BYTES)
        at = np.arange(words * _WORD_BYTES, dtype=np.int32)
        main = at // _WORD_BYTES * LANES * _WORD_BYTES + at % _WORD_BYTES + lane * _WORD_BYTES
        rest = words * LANES * _WORD_BYTES + np.arange(tail, dtype=np.int32) + lane * tail
        columns.append(start + np.concatenate([main, rest], axis=1))
        start += per_lane * LANES
    return np.concatenate(columns, axis=1)


def _shifts(width: int, length: int, order: Order) -> np.ndarray:
    """The bit of a little-endian word of `length` bytes at which each of its fields starts."""
    field = np.arange(8 * length // width, dtype=np.uint32)
    if order == "bitmap":
        return (width * field)[:, None]
    return (8 * (field % length) + width * (field // length))[:, None]


def _pack_part(fields: Array, width: int, order: Order) -> Array:
    *lead, count, lanes = fields.shape
    words, tail = divmod(count * width // 8, _WORD_BYTES)
    split = words * 32 // width
    planes = []
    for first, last, length, number in ((0, split, 4, words), (split, count, tail, 1)):
        if first == last:
            continue
        group = fields[..., first:last, :].reshape(*lead, number, -1, lanes).astype(jnp.uint32)
        # The fields do not overlap, so their sum is their union.
        packed = jnp.sum(group << _shifts(width, length, order), axis=-2, dtype=jnp.uint32)
        octets = jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :length]
        planes.append(octets.reshape(*lead, number * lanes * length))
    return jnp.concatenate(planes, axis=-1) if planes else jnp.zeros((*lead, 0), jnp.uint8)


def _unpack_part(plane: Array, width: int, lanes: int, order: Order) -> Array:
    *lead, size = plane.shape
    words, tail = divmod(size // lanes, _WORD_BYTES)
    split = words * lanes * _WORD_BYTES
    dtype = jnp.uint8 if width <= 8 else jnp.uint16
    fields = []
    if words:
        octets = plane[..., :split].reshape(*lead, words, 1, lanes, _WORD_BYTES)
        word = jax.lax.bitcast_convert_type(octets, jnp.uint32)
        fields.append((word >> _shifts(width, _WORD_BYTES, order)).astype(dtype))
    if tail:
        octets = plane[..., split:].reshape(*lead, 1, 1, lanes, tail).astype(jnp.uint32)
        word = jnp.sum(octets << (8 * np.arange(tail, dtype=np.uint32)), axis=-1, dtype=jnp.uint32)
        fields.append((word >> _shifts(width, tail, order)).astype(dtype))
    low = dtype((1 << width) - 1)
    flat = [(part & low).reshape(*lead, -1, lanes) for part in fields]
    return jnp.concatenate(flat, axis=-2) if flat else jnp.zeros((*lead, 0, lanes), dtype)
