import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.packing.layout import LANES, lane_bytes, lane_index, pack_fields, parts, unpack_fields
from tests.packing import oracle

# The bytes of one lane, worked out by hand; all others are 0. (bits, fields, {byte: value}).
GOLDEN = {
    # Four bytes take fields 0 to 3 in their low halves and 4 to 7 in their high ones.
    "a_word_of_int4": (4, [0, 1, 2, 3, 4, 5, 6, 7], {4: 0x40, 5: 0x51, 6: 0x62, 7: 0x73}),
    # Two bytes for each lane: field k in byte k % 2, at bit 2 * (k // 2).
    "a_tail_of_int2": (2, [3, 0, 0, 1, 2, 0, 0, 3], {2: 0x23, 3: 0xC4}),
    # Twelve bytes each: two words of four fields, then a tail of one byte.
    "words_and_a_tail_of_int8": (
        8,
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        {4: 1, 5: 2, 6: 3, 7: 4, 68: 5, 69: 6, 70: 7, 71: 8, 129: 9},
    ),
    # 3 = 2 + 1: the low two bits 0, 1, 2, 3, 3, 2, 1, 1 in two bytes, the high bits in one.
    "int3_is_split": (3, [0, 1, 2, 3, 7, 6, 5, 1], {2: 0x78, 3: 0x6D, 33: 0x70}),
}


@pytest.mark.parametrize(("bits", "fields", "want"), GOLDEN.values(), ids=GOLDEN.keys())
def test_bytes_of_lane_1_worked_out_by_hand(bits, fields, want):
    tile = np.zeros((len(fields), LANES), np.uint8)
    tile[:, 1] = fields
    got = np.asarray(pack_fields(jnp.array(tile), bits))
    assert {int(i): int(got[i]) for i in np.flatnonzero(got)} == want
    np.testing.assert_array_equal(unpack_fields(jnp.array(got), bits), tile)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [8, 40, 56])
def test_fields_lie_where_the_bit_by_bit_definition_puts_them(bits, count):
    rng = np.random.default_rng(bits * count)
    tiles = rng.integers(0, 1 << bits, (2, count, LANES), dtype=np.uint8)
    plane = np.asarray(pack_fields(jnp.array(tiles), bits))
    for tile, got in zip(tiles, plane, strict=True):
        assert got.tobytes() == oracle.field_plane(tile.T.tolist(), bits)
    np.testing.assert_array_equal(unpack_fields(jnp.array(plane), bits), tiles)


@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize("elements", [16, 32, 80])
def test_bitmaps_lie_where_the_bit_by_bit_definition_puts_them(width, elements):
    rng = np.random.default_rng(width * elements)
    keep = rng.random((elements, LANES)) < 0.5
    place = 1 << np.arange(width)[:, None]
    words = (keep.reshape(-1, width, LANES) * place).sum(axis=1).astype(np.uint16)
    plane = pack_fields(jnp.array(words), width, order="bitmap")
    assert np.asarray(plane).tobytes() == oracle.bitmap_plane(keep.T.tolist())
    np.testing.assert_array_equal(unpack_fields(plane, width, order="bitmap"), words)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_lane_taken_by_its_index_is_a_tile_of_one_lane(bits):
    fields = np.random.default_rng(bits).integers(0, 1 << bits, (40, LANES), dtype=np.uint8)
    plane = np.asarray(pack_fields(jnp.array(fields), bits))
    lanes = plane[lane_index(bits, plane.size)]
    got = unpack_fields(jnp.array(lanes), bits, lanes=1)
    np.testing.assert_array_equal(got[..., 0], fields.T)


def test_packing_runs_under_jit_and_vmap():
    fields = jnp.array(np.random.default_rng(0).integers(0, 16, (3, 2, 24, LANES)), jnp.uint8)
    want = jnp.stack([pack_fields(f, 4) for f in fields])
    plane = jax.jit(jax.vmap(lambda f: pack_fields(f, 4)))(fields)
    np.testing.assert_array_equal(plane, want)
    np.testing.assert_array_equal(jax.jit(lambda p: unpack_fields(p, 4))(plane), fields)


def test_widths_are_sums_of_powers_of_two():
    assert [sum(parts(bits)) for bits in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize(("count", "bits", "multiple"), [(3, 4, 2), (6, 2, 4), (12, 3, 8)])
def test_fields_that_leave_bits_over_are_refused(count, bits, multiple):
    with pytest.raises(
        ValueError, match=f"{count} fields of {bits} bits .* multiple of {multiple}"
    ):
        lane_bytes(count, bits)
