import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.packing import pack, pack_floats, stored_bytes, why_dense
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, Codebook, Codes, Float8, Int
from gossamer.sparsity import NM, Unstructured
from tests.packing import oracle

SCALES = ("float32", "bfloat16", "e8m0", "e4m3")
SPARSE = [NM(2, 4), NM(1, 4), NM(4, 8), NM(3, 8), NM(1, 2), NM(1, 16), NM(4, 16), NM(8, 16)]


encode = jax.jit(Int.encode, static_argnums=0)


@functools.partial(jax.jit, static_argnames="pattern")
def prune(values: jax.Array, pattern: NM) -> tuple[jax.Array, jax.Array]:
    mask = pattern.mask(jnp.abs(values), axis=0)
    return jnp.where(mask, values, 0), mask


def kernel(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pruned(shape: tuple[int, int], pattern: NM, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    return prune(jnp.array(kernel(shape, seed)), pattern)


def lane(plane: jax.Array, number: int, nbytes: int) -> str:
    """The bytes of one lane whose fields all lie in the same word or the same tail."""
    return np.asarray(plane)[0, number * nbytes : (number + 1) * nbytes].tobytes().hex()


def codes_of(columns: list[list[int]]) -> Codes:
    codes = jnp.array(columns, jnp.int8).T
    return Codes(codes, jnp.ones((1, codes.shape[1])))


def test_dense_int4_golden():
    packed = pack(codes_of([[0, 1, 2, 3, 4, 5, 6, 7], [-1, -2, -3, -4, -5, -6, -7, 0]]), Int(4))
    assert lane(packed.values, 0, 4) == "40516273"
    assert lane(packed.values, 1, 4) == "bfae9d0c"
    assert not np.asarray(packed.values)[0, 8:].any()  # the other 14 lanes are padding
    assert packed.padding == 14


def test_2_of_4_int4_golden():
    codes = codes_of([[1, 2, 0, 0, 3, 0, 0, 4, 0, 5, 6, 0, 0, 0, 7, -1]])
    packed = pack(codes, Int(4), NM(2, 4))
    assert lane(packed.values, 0, 4) == "516273f4"
    assert lane(packed.indices, 0, 2) == "90ed"  # 0 0 1 2 in one byte, 1 3 2 3 in the other
    assert lane(packed.indices, 1, 2) == "0055"  # padding keeps places 0 and 1


def test_4_of_8_int4_golden():
    packed = pack(codes_of([[1, 0, 0, 2, 0, 3, 4, 0]]), Int(4), NM(4, 8))
    assert lane(packed.values, 0, 2) == "3142"
    assert lane(packed.indices, 0, 1) == "69"  # a bitmap: elements 0, 3, 5 and 6


def test_a_kept_weight_whose_code_is_0_keeps_its_place():
    mask = jnp.array([0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0], bool)[:, None]
    codes = codes_of([[0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0]])
    packed = pack(codes, Int(4), NM(2, 4), mask)
    assert lane(packed.values, 0, 4) == "65000000"  # kept: 5 0 0 0 6 0 0 0
    assert lane(packed.indices, 0, 2) == "267f"  # places: 2 3 1 3 2 3 0 1


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(32, 16), (48, 35)], ids=str)
def test_dense_planes_equal_the_bit_by_bit_definition(bits, shape):
    codes = encode(Int(bits), jnp.array(kernel(shape, bits)))
    packed = pack(codes, Int(bits))
    assert np.asarray(packed.values).tobytes() == oracle.dense(codes.codes.tolist(), bits)
    assert packed.indices is None


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("pattern", SPARSE, ids=str)
def test_sparse_planes_equal_the_bit_by_bit_definition(bits, pattern):
    values, mask = pruned((128, 19), pattern, bits)
    codes = encode(Int(bits), values)
    packed = pack(codes, Int(bits), pattern, mask)
    planes = oracle.sparse(codes.codes.tolist(), mask.tolist(), bits, pattern.n, pattern.m)
    assert packed.pattern == pattern
    assert np.asarray(packed.values).tobytes() == planes[0]
    assert np.asarray(packed.indices).tobytes() == planes[1]


@settings(deadline=None, max_examples=15)  # nearly every example compiles
@given(data=st.data())
def test_codes_scales_and_zero_points_come_back_bit_for_bit(data):
    bits = data.draw(st.integers(2, 8), "bits")
    pattern = data.draw(st.sampled_from([None, NM(3, 4), *SPARSE]), "pattern")
    symmetric = pattern is not None or data.draw(st.booleans(), "symmetric")
    group = data.draw(st.sampled_from([None, 16]), "group")
    scale = data.draw(st.sampled_from(SCALES), "scale")
    shape = data.draw(st.sampled_from([(128, 35), (384, 16)]), "shape")
    format = Int(bits, group, scale, symmetric)
    if pattern is None:
        values, mask = jnp.array(kernel(shape, bits)), None
    else:
        values, mask = pruned(shape, pattern, bits)
    codes = encode(format, values)
    packed = pack(codes, format, pattern, mask)
    jax.tree.map(np.testing.assert_array_equal, packed.unpack(), codes)
    np.testing.assert_array_equal(packed.materialize(), codes.decode())
    assert packed.shape == shape


@pytest.mark.parametrize("pattern", [None, NM(2, 4), NM(4, 8)], ids=str)
@pytest.mark.parametrize(
    "format",
    [
        Codebook(E2M1, 16, "e8m0"),
        Codebook(E2M1),
        NVFP4(),
        MX("e2m1"),
        MX("e2m3"),
        MX("e3m2"),
        MX("e4m3"),
        Float8("e5m2"),
        MX("int8"),
        HBFP(6),
    ],
    ids=str,
)
def test_codes_of_a_book_come_back_bit_for_bit(pattern, format):
    shape = (128, 35)
    values, mask = (
        (jnp.array(kernel(shape, 0)), None) if pattern is None else pruned(shape, pattern, 0)
    )
    codes = format.encode(values)
    packed = pack(codes, format, pattern, mask)
    if mask is not None and why_dense(pattern, format) is None:  # a pruned -0 comes back as 0
        codes = codes._replace(codes=jnp.where(mask, codes.codes, jnp.zeros((), codes.codes.dtype)))
    for got, want in zip(packed.unpack(), codes, strict=True):
        assert (got is None) == (want is None)
        assert got is None or np.asarray(got).tobytes() == np.asarray(want).tobytes()
    np.testing.assert_array_equal(packed.materialize(), codes.decode())
    np.testing.assert_array_equal(packed.take(jnp.arange(35)), codes.decode().T)


def test_a_codebook_writes_the_number_of_its_value_in_4_bits():
    codes = Codebook(E2M1).encode(
        jnp.array([[6.0], [-0.5], [0.0], [3.0], [-6.0], [1.5], [0.5], [4.0]])
    )
    packed = pack(codes, Codebook(E2M1))
    lane = np.asarray(packed.values).ravel()[:4]  # of the first output: windows of four
    np.testing.assert_array_equal(lane & 15, [7, 9, 0, 5])
    np.testing.assert_array_equal(lane >> 4, [15, 3, 1, 6])


def test_a_small_float_is_stored_as_its_own_bits():
    values = [[6.0], [-0.5], [-0.01], [3.0], [-6.0], [1.5], [0.5], [4.0]]
    codes = MX("e2m1", group=8).encode(jnp.array(values))
    lane = np.asarray(pack(codes, MX("e2m1", group=8)).values).ravel()[:4]
    np.testing.assert_array_equal(lane & 15, [7, 9, 8, 5])  # 8 is -0
    np.testing.assert_array_equal(lane >> 4, [15, 3, 1, 6])


def test_refuses_codes_of_another_type():
    with pytest.raises(ValueError, match=r"MXFP4 E2M1.* has codes of float8_e4m3fn, got int8"):
        pack(Codes(jnp.zeros((32, 16), jnp.int8), jnp.ones((1, 16))), MX("e2m1"))


def test_refuses_floats_that_are_none_of_the_format():
    codes = MX("e2m1").encode(jnp.ones((32, 16)))
    odd = codes._replace(codes=codes.codes.at[3, 2].set(1.25))
    with pytest.raises(ValueError, match=r"have 1\.25, which is no value of MXFP4"):
        pack(odd, MX("e2m1"))


def test_refuses_a_block_of_nan():
    codes = MX("e4m3").encode(jnp.ones((32, 16)).at[0, 0].set(jnp.inf))
    with pytest.raises(ValueError, match=r"have nan, which is no value of MXFP8|a scale nan"):
        pack(codes, MX("e4m3"))


def test_refuses_codes_that_are_no_values_of_the_codebook():
    codes = Codes(jnp.full((8, 16), 5, jnp.int8), jnp.ones((1, 16)))
    with pytest.raises(ValueError, match=r"have 5, which is no value of E2M1"):
        pack(codes, Codebook(E2M1))


@pytest.mark.parametrize("pattern", SPARSE, ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_float_values_come_back_bit_for_bit(pattern, dtype):
    values, mask = pruned((64, 21), pattern)
    packed = pack_floats(values.astype(dtype), pattern, mask)
    np.testing.assert_array_equal(packed.materialize(), values.astype(dtype))
    assert (packed.dtype, packed.shape) == (dtype, (64, 21))
    assert packed.values.shape == (2, 64 * pattern.n // pattern.m, 16)


def test_unused_lanes_have_zero_codes_and_scale_1():
    codes = encode(Int(4, scale="e8m0"), jnp.full((8, 3), 100.0))
    packed = pack(codes, Int(4, scale="e8m0"))
    np.testing.assert_array_equal(packed.scales[0, 0, 3:], 127)  # 2^0
    assert not np.asarray(packed.values)[0, 3 * 4 :].any()


# Bits for each weight without scales: the figures of the design, and 8:16, which it calls dense.
BITS = {
    "2:4 int4": (NM(2, 4), 4, 3.0),
    "1:4 int4": (NM(1, 4), 4, 1.5),
    "1:4 int2": (NM(1, 4), 2, 1.0),
    "4:8 int4": (NM(4, 8), 4, 3.0),
    "1:16 int8": (NM(1, 16), 8, 0.75),
    "8:16 int4": (NM(8, 16), 4, 3.0),
    "dense int3": (None, 3, 3.0),
}


@pytest.mark.parametrize(("pattern", "bits", "want"), BITS.values(), ids=BITS.keys())
def test_bits_for_each_weight_are_the_arithmetic(pattern, bits, want):
    values, mask = (jnp.ones((512, 64)), None) if pattern is None else pruned((512, 64), pattern)
    packed = pack(encode(Int(bits), values), Int(bits), pattern, mask)
    assert 8 * (packed.nbytes - packed.scales.nbytes) == want * 512 * 64
    assert packed.scales.nbytes == 4 * 64


DENSE = {
    "3:4 int4": (NM(3, 4), Int(4), "3:4 would take 16 bits for 4 weights, dense takes 16"),
    "2:4 int2": (NM(2, 4), Int(2), "2:4 would take 8 bits for 4 weights, dense takes 8"),
    "8:16 int2": (NM(8, 16), Int(2), "8:16 would take 32 bits for 16 weights, dense takes 32"),
    "all kept": (NM(4, 4), Int(8), "4:4 would take 36 bits for 4 weights, dense takes 32"),
    "M of 32": (NM(2, 32), Int(4), r"groups of \(2, 4, 8, 16\), not of 32"),
    "zero points": (NM(2, 4), Int(4, symmetric=False), "zero points are stored dense"),
    "unstructured": (Unstructured(0.5), Int(4), "50% unstructured keeps no fixed number"),
}


@pytest.mark.parametrize(("pattern", "format", "reason"), DENSE.values(), ids=DENSE.keys())
def test_what_saves_nothing_is_stored_dense_and_said_so(pattern, format, reason):
    assert re.search(reason, why_dense(pattern, format) or "")
    if isinstance(pattern, NM):
        values, mask = pruned((64, 16), pattern)
        codes = encode(format, values)
        packed = pack(codes, format, pattern, mask)
        assert packed.pattern is None
        assert packed.indices is None
        np.testing.assert_array_equal(packed.unpack().codes, codes.codes)


@pytest.mark.parametrize("pattern", SPARSE, ids=str)
def test_what_saves_is_stored_sparse(pattern):
    assert why_dense(pattern, Int(4)) is None
    assert why_dense(pattern, None) is None


PATTERNS = [None, NM(2, 4), NM(4, 8), Unstructured(0.5)]
FORMATS = [
    Int(4),
    Int(2, group=16),
    Int(3, group=32, scale="bfloat16"),
    Int(8, group=8, symmetric=False),
    HBFP(6),
    MX("e2m1"),
    NVFP4(),
    None,
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_stored_bytes_are_those_of_the_packed_kernel(pattern, format):
    shape = (384, 24)  # lanes of 8 outputs are left over
    weight = jnp.array(kernel(shape))
    if pattern is not None:
        weight = jnp.where(pattern.mask(jnp.abs(weight), axis=0), weight, 0)
    sparse = pattern if isinstance(pattern, NM) and not why_dense(pattern, format) else None
    if format is not None:
        stored = pack(format.encode(weight), format, sparse)
    else:
        stored = weight if sparse is None else pack_floats(weight, sparse)
    assert stored_bytes(shape, pattern, format) == stored.nbytes


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_stored_bytes_of_bfloat16_are_those_of_its_packed_kernel(pattern):
    weight = jnp.array(kernel((64, 24)), jnp.bfloat16)
    if not isinstance(pattern, NM):
        stored = weight
    else:
        weight = jnp.where(pattern.mask(jnp.abs(weight), axis=0), weight, 0)
        stored = pack_floats(weight, pattern)
    assert stored_bytes((64, 24), pattern, None, float_bits=16) == stored.nbytes


@pytest.mark.parametrize(
    ("shape", "pattern", "format"),
    [((60, 16), None, Int(4, group=8)), ((62, 16), NM(2, 4), Int(4)), ((33, 16), None, Int(4))],
)
def test_stored_bytes_of_what_cannot_be_packed_are_refused_as_packing_is(shape, pattern, format):
    with pytest.raises(ValueError) as planned:
        stored_bytes(shape, pattern, format)
    weight = jnp.ones(shape)
    with pytest.raises(ValueError) as packed:
        pack(format.encode(weight), format, pattern)
    assert str(planned.value) == str(packed.value)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_dense_kernel_drops_what_the_mask_drops(symmetric):
    format = Int(4, group=8, symmetric=symmetric)
    values = jnp.array(kernel((16, 8)))
    mask = jnp.array(kernel((16, 8), seed=1)) > 0
    packed = pack(encode(format, values), format, mask=mask)
    want = jnp.where(mask, encode(format, values).decode(), 0)
    np.testing.assert_array_equal(packed.materialize(), want)


def test_pack_runs_under_jit_and_vmap():
    values, mask = pruned((64, 32), NM(2, 4))
    stack, masks = jnp.stack([values, -2 * values]), jnp.stack([mask, mask])
    format = Int(4, group=16)

    def both(values, mask):
        return pack(encode(format, values), format, NM(2, 4), mask)

    packed = jax.jit(jax.vmap(both))(stack, masks)
    assert packed.shape == (2, 64, 32)
    got = jax.vmap(lambda p: p.materialize())(packed)
    np.testing.assert_array_equal(got, jax.vmap(lambda v: encode(format, v).decode())(stack))


def encoded(format: Int, shape: tuple[int, int] = (16, 16)) -> Codes:
    return encode(format, jnp.array(kernel(shape)))


def test_refuses_codes_that_the_bits_do_not_hold():
    with pytest.raises(ValueError, match=r"\(16, 16\) go from -127 to 1\d\d, which 4 bits"):
        pack(encoded(Int(8)), Int(4))


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0, -1.0, 0.3])
def test_refuses_scales_that_the_format_does_not_hold(scale):
    codes = encoded(Int(4, scale="e8m0"))
    codes = codes._replace(scales=codes.scales.at[0, 3].set(scale))
    with pytest.raises(ValueError, match=r"scale (nan|inf|0.0|-1.0|0.3.*), which is no .* e8m0"):
        pack(codes, Int(4, scale="e8m0"))


def test_refuses_scales_of_other_groups():
    with pytest.raises(ValueError, match=r"groups of 8.* scales \(2, 16\), got \(1, 16\)"):
        pack(encoded(Int(4)), Int(4, group=8))


def test_refuses_zero_points_that_the_format_lacks():
    with pytest.raises(ValueError, match=r"have zero points, which does not suit int4"):
        pack(encoded(Int(4, symmetric=False)), Int(4))


def test_refuses_a_group_that_keeps_too_many_and_names_it():
    mask = jnp.zeros((16, 16), bool).at[4:7, 9].set(True)
    with pytest.raises(ValueError, match=r"3 are kept in group 1 of output 9 of kernel \(16, 16\)"):
        pack(encoded(Int(4)), Int(4), NM(2, 4), mask)


def test_refuses_a_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"mask \(8, 16\) does not suit a kernel \(16, 16\)"):
        pack(encoded(Int(4)), Int(4), NM(2, 4), jnp.ones((8, 16), bool))


def test_refuses_an_axis_that_the_groups_do_not_divide():
    codes = Codes(jnp.zeros((6, 4), jnp.int8), jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"2:4 .* multiple of 4, got 6 in shape \(6, 4\)"):
        pack(codes, Int(4), NM(2, 4))


def test_refuses_fields_that_leave_bits_over():
    with pytest.raises(ValueError, match=r"dense kernel \(12, 4\) .* 12 fields of 3 .* of 8"):
        pack(encoded(Int(3), (12, 4)), Int(3))
    with pytest.raises(ValueError, match=r"1:4 kernel \(8, 4\) .* 2 fields of 2 .* of 4"):
        pack_floats(jnp.zeros((8, 4)), NM(1, 4))


def test_refuses_floats_that_are_not_finite_or_save_nothing():
    with pytest.raises(ValueError, match=r"Kernel \(16, 1\) holds NaN or Inf"):
        pack_floats(jnp.zeros((16, 1)).at[3].set(jnp.nan), NM(2, 4))
    with pytest.raises(ValueError, match=r"\(64, 1\) stays a plain array: .* not of 32"):
        pack_floats(jnp.zeros((64, 1)), NM(1, 32))
