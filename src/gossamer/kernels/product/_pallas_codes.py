"""From packed bytes to codes, in the vector registers of a TPU.

A register has 8 rows of 128 words of 32 bits. A product wants inputs in order down the rows and an
output in each of the 128 places of a row. What memory holds are rows of bytes, one for each tile of
16 outputs: 128 of them, a *column*, are two words of each output, and the columns of 32 tiles fill
a register. `words` goes from the one to the other without leaving the registers, by rotations and
selections that exchange a bit of a byte's row, place or number in its word for another, as one
transposes matrices of 2 x 2. `codes` then gives a word a row for each of its inputs, and every row
shifts out another field.

The outputs of a row are those of eight tiles, not in order: output l of tile 4 i + j is at place
64 i + 4 l + j. `to_registers` brings a row of other planes into that order, `to_outputs` a row of
sums out of it.

All of it is arithmetic on 32-bit integers without a division: what the Mosaic compiler has for all
TPUs.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Int32, Num, UInt8

from gossamer.sparsity import NM

TILES = 32
"""Tiles whose bytes fill a register."""

OUTPUTS = 16 * TILES
"""Outputs of so many tiles."""

PLACES = 128
"""Words in a row of a register, and outputs of a register of codes."""

REGISTERS = OUTPUTS // PLACES
"""Registers side by side that hold the codes of the same words."""

COLUMN_BYTES = 128
"""Bytes of each tile in a register of words."""

COLUMN_WORDS = 2
"""Words of each output in a register of words."""

_REGISTER_ROWS = 8


def place_bits(pattern: NM) -> int | None:
    """Bits of a stored place; None where there is a bitmap (`docs/packed-layout.md`)."""
    bits = (pattern.m - 1).bit_length()
    return bits if pattern.n * bits <= pattern.m else None


def words(plane: jax.Ref) -> Int32[Array, "columns 8 128"]:
    """Reads `uint8 [32, bytes]`; word 2 c + p of the outputs of register r comes to `[c, 2 r + p]`.

    Args:
        plane: a reference to whole columns of 32 tiles.
    """
    columns = range(plane.shape[1] // COLUMN_BYTES)
    read: UInt8[Array, "columns 32 128"] = jnp.stack(
        [plane[:, pl.ds(column * COLUMN_BYTES, COLUMN_BYTES)] for column in columns]
    )
    # Now byte p of tile 4 s + b is byte b of the word in row s at place p, and p is word 0 or 1,
    # output of the tile and byte of the word. So b trades places with the last two bits of p, and
    # the first bit of p with the last of s.
    found = pltpu.bitcast(read, jnp.int32)
    found = _exchange_bytes(found, distance=1, bits=8, low=0x00FF00FF)
    found = _exchange_bytes(found, distance=2, bits=16, low=0x0000FFFF)
    return _exchange_words(found)


def codes(
    values: Int32[Array, "columns 8 128"],
    indices: Int32[Array, "index_columns 8 128"] | None,
    bits: int,
    pattern: NM | None,
    register: int,
) -> Int32[Array, "in 128"]:
    """The codes of a register's outputs, in the order of `in`; zeros where nothing is kept.

    Args:
        values: words of 2, 4 or 8 bit fields.
        indices: words of places or bitmaps that belong to `values`; None when dense.
        bits: bits of a code.
        pattern: which codes are kept, N and M powers of two; None when dense.
        register: which 128 of the 512 outputs.
    """
    if pattern is None:
        rows = _spread(values, register, 32 // bits)
        found = _field(rows, _row(rows) & (32 // bits - 1), bits)
    else:
        assert indices is not None
        by = _by_bitmap if place_bits(pattern) is None else _by_places
        found = by(values, indices, bits, pattern, register)
    return found.reshape(-1, PLACES)


def to_registers(row: Num[Array, "rows 128"]) -> Num[Array, "rows 128"]:
    """From the order of outputs to that of a register, each row alone; 32-bit numbers."""
    place = jax.lax.broadcasted_iota(jnp.int32, (1, PLACES), 1)
    return _take(row, (place & 64) | ((place & 3) << 4) | ((place >> 2) & 15))


def to_outputs(row: Num[Array, "rows 128"]) -> Num[Array, "rows 128"]:
    """What `to_registers` undoes."""
    place = jax.lax.broadcasted_iota(jnp.int32, (1, PLACES), 1)
    return _take(row, (place & 64) | ((place & 15) << 2) | ((place >> 4) & 3))


def _take(row: Num[Array, "rows 128"], places: Int32[Array, "1 128"]) -> Num[Array, "rows 128"]:
    if row.shape[0] == 1:  # Mosaic has no gather from a single row
        return _take(jnp.broadcast_to(row, (_REGISTER_ROWS, PLACES)), places)[:1]
    return jnp.take_along_axis(row, jnp.broadcast_to(places, row.shape), axis=1)


def _exchange_bytes(
    found: Int32[Array, "columns 8 128"], distance: int, bits: int, low: int
) -> Int32[Array, "columns 8 128"]:
    """Exchanges a bit of the place for one of the byte's number in its word.

    Args:
        found: words.
        distance: 1 or 2, how far apart places are that differ in the bit; so with numbers of bytes.
        bits: how far apart such bytes are.
        low: a mask of the bytes whose number has the bit 0.
    """
    upper = (_place(found) & distance) != 0
    before = pltpu.roll(found, distance, 2)
    after = pltpu.roll(found, PLACES - distance, 2)
    # The shift to the right copies the sign, but into bytes that are not taken.
    arriving = jnp.where(upper, before >> bits, after << bits)
    taken = jnp.where(upper, low, ~low)
    return (arriving & taken) | (found & ~taken)


def _exchange_words(found: Int32[Array, "columns 8 128"]) -> Int32[Array, "columns 8 128"]:
    """Exchanges the last bit of the row for the first bit of the place."""
    odd = (_row(found) & 1) != 0
    upper = (_place(found) & (PLACES // 2)) != 0
    turned = pltpu.roll(found, PLACES // 2, 2)
    above, below = pltpu.roll(turned, 1, 1), pltpu.roll(turned, _REGISTER_ROWS - 1, 1)
    return jnp.where(odd == upper, found, jnp.where(odd, above, below))


def _pair(
    found: Int32[Array, "columns 8 128"], register: int, rows: int
) -> list[Int32[Array, "columns rows 128"]]:
    """Each column's two words of a register's outputs, repeated in `rows` rows."""
    shape = (found.shape[0], rows, PLACES)
    at = COLUMN_WORDS * register
    return [jnp.broadcast_to(found[:, at + i : at + i + 1], shape) for i in range(COLUMN_WORDS)]


def _spread(
    found: Int32[Array, "columns 8 128"], register: int, rows: int
) -> Int32[Array, "_ _ 128"]:
    """Every word in `rows` rows, one word after another.

    Words that have fewer rows than a register share one: its first rows are the first word's.
    """
    if rows < _REGISTER_ROWS:
        first, second = _pair(found, register, COLUMN_WORDS * rows)
        return jnp.where(_row(first) < rows, first, second)
    pair = jnp.stack(_pair(found, register, rows), axis=1)
    return pair.reshape(-1, rows, PLACES)


def _by_places(
    values: Int32[Array, "columns 8 128"],
    indices: Int32[Array, "index_columns 8 128"],
    bits: int,
    pattern: NM,
    register: int,
) -> Int32[Array, "words rows 128"]:
    """Each input takes the kept code of its group that has its place, if one has."""
    of_place = place_bits(pattern)
    assert of_place is not None
    inputs = pattern.m // pattern.n  # of a field
    kept = _spread(values, register, 32 // bits * inputs)
    places = _spread(indices, register, 32 // of_place * inputs)
    found = jnp.zeros_like(kept)
    for slot in range(pattern.n):
        place = places >> _start(_first_field(places, pattern) + slot, of_place)
        here = (place & (pattern.m - 1)).reshape(kept.shape) == (_row(kept) & (pattern.m - 1))
        found = jnp.where(here, _field(kept, _first_field(kept, pattern) + slot, bits), found)
    return found


def _by_bitmap(
    values: Int32[Array, "columns 8 128"],
    indices: Int32[Array, "index_columns 8 128"],
    bits: int,
    pattern: NM,
    register: int,
) -> Int32[Array, "words rows 128"]:
    """Each marked input takes the kept code whose number is that of the marks before it."""
    marks = _spread(indices, register, 32)
    row = _row(marks)
    before = (1 << row) - (1 << (row & -pattern.m))  # bits of the same group
    number = jax.lax.population_count(marks & before)
    marked = (marks >> row) & 1
    fields = 32 // bits
    if pattern.n > fields:  # a group's codes are the two words of a column
        first, second = _pair(values, register, pattern.m)
        number = number.reshape(first.shape)
        kept = jnp.where(number < fields, first, second)
        found = _field(kept, number & (fields - 1), bits)
    else:
        kept = _spread(values, register, fields * pattern.m // pattern.n)
        number = number.reshape(kept.shape)
        found = _field(kept, _first_field(kept, pattern) + number, bits)
    return jnp.where(marked.reshape(found.shape) != 0, found, 0)


def _first_field(rows: Int32[Array, "words rows 128"], pattern: NM) -> Int32[Array, "1 rows 128"]:
    """The number in its word of the first field of a row's group."""
    return (_row(rows) >> (pattern.m.bit_length() - 1)) * pattern.n


def _start(field: Int32[Array, "*dims"], bits: int) -> Int32[Array, "*dims"]:
    """The bit of its word at which a field starts: four consecutive ones are in four bytes."""
    return ((field & 3) << 3) + (field >> 2) * bits


def _field(
    rows: Int32[Array, "words rows 128"], field: Int32[Array, "#words rows 128"], bits: int
) -> Int32[Array, "words rows 128"]:
    """A field of each row's word, its sign extended."""
    return (rows << (32 - bits - _start(field, bits))) >> (32 - bits)


def _row(array: Int32[Array, "_ rows 128"]) -> Int32[Array, "1 rows 128"]:
    return jax.lax.broadcasted_iota(jnp.int32, (1, *array.shape[1:]), 1)


def _place(array: Int32[Array, "_ rows 128"]) -> Int32[Array, "1 rows 128"]:
    return jax.lax.broadcasted_iota(jnp.int32, (1, *array.shape[1:]), 2)
