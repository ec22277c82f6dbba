import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gossamer.quantization import Int
from gossamer.quantization.scales import (
    SCALE_BITS,
    round_scale,
    scale_from_bytes,
    scale_to_bytes,
)

FORMATS = [
    Int(8),
    Int(4, group=4),
    Int(4, group=4, scale="bfloat16"),
    Int(3, group=8, scale="e8m0"),
    Int(2, scale="e4m3"),
    Int(8, symmetric=False),
    Int(4, group=4, symmetric=False),
    Int(3, group=8, scale="bfloat16", symmetric=False),
]
BYTE_TYPES = {"bfloat16": ml_dtypes.bfloat16, "e8m0": ml_dtypes.float8_e8m0fnu}
BYTE_TYPES["e4m3"] = ml_dtypes.float8_e4m3fn
NORMAL = float(np.finfo(np.float32).smallest_normal)
# Values from 2^-100 to 2^100 and zero: quotients and products stay normal numbers.
VALUES = st.one_of(
    st.floats(-4, 4, width=32, allow_subnormal=False),
    st.floats(2.0**-100, 2.0**100, width=32).flatmap(lambda x: st.sampled_from([x, -x])),
    st.just(0.0),
)
KERNELS = arrays(np.float32, (8, 3), elements=VALUES)
encode = jax.jit(Int.encode, static_argnames="self")
jit_round_scale = jax.jit(round_scale, static_argnames="kind")


def scale_by_hand(scale: np.float32, kind: str) -> np.float32:
    """What a storage type makes of a scale, by ml_dtypes and `frexp`."""
    if not scale >= NORMAL:
        return np.float32(1)
    scale = min(scale, np.float32(1 / NORMAL))
    if kind == "float32":
        return scale
    if kind == "bfloat16":
        return np.float32(scale.astype(ml_dtypes.bfloat16))
    if kind == "e4m3":
        return np.float32(np.clip(scale, 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn))
    mantissa, exponent = math.frexp(scale)  # scale = mantissa * 2^exponent, mantissa in [1/2, 1)
    return np.float32(math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent))


def encode_by_hand(kernel: np.ndarray, format: Int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One number at a time: codes, scales and zero points."""
    group = format.group or kernel.shape[0]
    groups = kernel.shape[0] // group
    codes = np.zeros(kernel.shape, np.int64)
    scales = np.zeros((groups, kernel.shape[1]), np.float32)
    zeros = np.zeros(scales.shape, np.int64)
    levels = 2**format.bits - 1
    top = levels // 2  # 7 of int4
    for g in range(groups):
        for o in range(kernel.shape[1]):
            values = kernel[g * group : (g + 1) * group, o]
            low, high = min(values.min(), np.float32(0)), max(values.max(), np.float32(0))
            if format.symmetric:
                span, steps, bottom = max(-low, high), top, -top
            else:
                span, steps, bottom = high - low, levels, -top - 1
            scale = scale_by_hand(span * np.float32(1 / steps), format.scale)
            inverse, zero = np.float32(1) / scale, 0
            if not format.symmetric:
                zero = min(max(round(float(-low * inverse)) + bottom, bottom), top)
            for i, value in enumerate(values):
                code = round(float(value * inverse)) + zero  # Python rounds half to even
                codes[g * group + i, o] = min(max(code, bottom), top)
            scales[g, o], zeros[g, o] = scale, zero
    return codes, scales, zeros


@pytest.mark.parametrize("format", FORMATS, ids=str)
@settings(deadline=None, max_examples=60)
@given(kernel=KERNELS)
def test_codes_are_those_of_a_loop_over_single_numbers(format, kernel):
    got = encode(format, jnp.asarray(kernel))
    codes, scales, zeros = encode_by_hand(kernel, format)
    np.testing.assert_array_equal(got.scales, scales)
    np.testing.assert_array_equal(got.codes, codes)
    if format.symmetric:
        assert got.zeros is None
    else:
        np.testing.assert_array_equal(got.zeros, zeros)
    steps = (codes - np.repeat(zeros, 8 // len(zeros), axis=0)).astype(np.float32)
    np.testing.assert_array_equal(got.decode(), steps * np.repeat(scales, 8 // len(zeros), axis=0))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_codes_are_those_of_a_loop_for_ordinary_kernels(format):
    kernel = np.random.default_rng(0).normal(0, 0.05, (64, 24)).astype(np.float32)
    codes, scales, zeros = encode_by_hand(kernel, format)
    for got in (format.encode(jnp.asarray(kernel)), encode(format, jnp.asarray(kernel))):
        np.testing.assert_array_equal(got.codes, codes)
        np.testing.assert_array_equal(got.scales, scales)
        if got.zeros is not None:
            np.testing.assert_array_equal(got.zeros, zeros)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("e4m3", np.arange(1, 127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)),
        ("bfloat16", np.arange(0x3F00, 0x4080, dtype=np.uint16).view(ml_dtypes.bfloat16)),
        ("e8m0", np.arange(1, 254, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu)),
    ],
)
def test_scales_round_as_the_element_type_says_at_points_ties_and_beside_them(kind, points):
    points = points.astype(np.float32)
    middles = points[:-1] + (points[1:] - points[:-1]) / 2
    beside = [np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(np.inf))]
    beside += [np.nextafter(points[1:], np.float32(0))]
    scales = np.concatenate([points, middles, *beside])
    want = np.array([scale_by_hand(s, kind) for s in scales])
    np.testing.assert_array_equal(jit_round_scale(jnp.asarray(scales), kind), want)
    np.testing.assert_array_equal(jit_round_scale(jnp.asarray(points), kind), points)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 128), (3, 64), (2, 32)])
def test_a_million_random_values_and_ties_are_those_of_numpy(bits, group, symmetric):
    """The same float32 operations, one after the other, in NumPy."""
    rng = np.random.default_rng(bits)
    kernel = rng.standard_normal((1024, 1024)) * np.exp2(rng.integers(-20, 20, (1, 1024)))
    kernel[:, ::3] = rng.integers(-40, 41, (1024, 342)) / 4  # full of ties
    kernel[::32, 1::5] = 0
    kernel = kernel.astype(np.float32)
    blocks, one = kernel.reshape(-1, group or 1024, 1024), np.float32(1)
    top = 2 ** (bits - 1) - 1
    if symmetric:
        scales = np.abs(blocks).max(axis=1, keepdims=True) * np.float32(1 / top)
        zeros, bottom = np.float32(0), -top
    else:
        low, high = blocks.min(1, keepdims=True).clip(max=0), blocks.max(1, keepdims=True).clip(0)
        scales = (high - low) * np.float32(1 / (2**bits - 1))
        bottom = -top - 1
        zeros = np.clip(np.rint(-low * (one / scales)) + np.float32(bottom), bottom, top)
    codes = np.clip(np.rint(blocks * (one / scales)) + zeros, bottom, top)
    want = (codes - zeros) * scales
    got = jax.jit(Int(bits, group, symmetric=symmetric).quantize)(kernel)
    np.testing.assert_array_equal(got, want.reshape(kernel.shape))


@pytest.mark.parametrize("kind", SCALE_BITS)
@settings(deadline=None, max_examples=60)
@given(scale=st.floats(NORMAL, float(np.finfo(np.float32).max), width=32))
def test_scales_survive_their_storage(kind, scale):
    rounded = jit_round_scale(jnp.float32(scale), kind)
    np.testing.assert_array_equal(rounded, scale_by_hand(np.float32(scale), kind))
    assert NORMAL <= rounded <= 1 / NORMAL
    stored = scale_to_bytes(rounded, kind)
    assert stored.dtype.itemsize * 8 == SCALE_BITS[kind]
    np.testing.assert_array_equal(scale_from_bytes(stored, kind), rounded)
    if kind != "float32":  # the bytes are those that ml_dtypes writes
        want = np.asarray(rounded).astype(BYTE_TYPES[kind])
        np.testing.assert_array_equal(np.asarray(stored).tobytes(), want.tobytes())


@pytest.mark.parametrize("kind", SCALE_BITS)
def test_scale_of_zero_and_scales_too_small_or_large_to_store(kind):
    smallest = 2.0**-9 if kind == "e4m3" else NORMAL
    largest = 448.0 if kind == "e4m3" else 1 / NORMAL
    subnormal = NORMAL / 4
    scales = jnp.array([0.0, NORMAL, 3e38, jnp.inf])
    np.testing.assert_array_equal(
        jit_round_scale(scales, kind), np.array([1, smallest, largest, largest], np.float32)
    )
    # A machine may flush a subnormal scale to zero; both stand for 1.
    assert float(jit_round_scale(jnp.float32(subnormal), kind)) == 1.0


@pytest.mark.parametrize(
    ("bits", "values", "codes"),
    [
        (4, [0.5, 1.5, 2.5, -0.5, -1.5, -2.5], [0, 2, 2, 0, -2, -2]),
        (4, [7.4, 7.5, 8.0, 1e30, -7.5, -1e30], [7, 7, 7, 7, -7, -7]),
        (2, [0.5, 0.51, 1.5, -0.5, -0.51, -2.0], [0, 1, 1, 0, -1, -1]),
        (8, [126.5, 127.5, 300.0, -0.0, 0.49, -300.0], [126, 127, 127, 0, 0, -127]),
    ],
)
def test_round_goes_half_to_even_and_clips_before_the_cast(bits, values, codes):
    got = Int(bits).round(jnp.array(values), jnp.ones(1), None)
    np.testing.assert_array_equal(got, np.array(codes, np.int8))


def test_int4_golden():
    kernel = jnp.array([[7.0, 0.0], [1.4, 0.0], [-0.6, 0.0], [0.1, 0.0]])
    codes = Int(4).encode(kernel)
    np.testing.assert_array_equal(codes.codes, [[7, 0], [1, 0], [-1, 0], [0, 0]])
    np.testing.assert_array_equal(codes.scales, [[1.0, 1.0]])  # 1 where all are 0
    np.testing.assert_array_equal(codes.decode(), [[7, 0], [1, 0], [-1, 0], [0, 0]])


def test_asymmetric_int4_grid_golden():
    """The grids of the asymmetric GPTQ row in the interplay sheet, 9.4: 0.1 with zeros 6 and 8."""
    kernel = np.array(
        [
            [0.9, -0.4, 0.35, 0.1, -0.6, 0.25, 0.5, -0.05],
            [0.2, 0.7, -0.3, 0.65, 0.15, -0.8, 0.05, 0.45],
        ]
    ).T
    codes = Int(4, symmetric=False).encode(jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(codes.scales, [[0.1, 0.1]], rtol=1e-6)
    np.testing.assert_array_equal(codes.zeros, [[6 - 8, 8 - 8]])  # our codes are signed
    assert (int(codes.codes[0, 0]), int(codes.codes[4, 0])) == (7, -8)  # maximum and minimum


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_zero_stays_exactly_zero(format):
    kernel = jnp.array([[3.0, -1.0, 0.0]] * 4 + [[0.0, 0.0, 0.0]] * 4)
    kernel = kernel.at[1:4].multiply(jnp.array([0.3, 2.0, 5.0])[:, None])
    np.testing.assert_array_equal(format.encode(kernel).decode()[4:], np.zeros((4, 3)))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rounding_is_to_the_nearest_point_of_the_grid(format):
    """In float64; 2^-20 is for the float32 quotient, 2^-8 for a bfloat16 scale that clips."""
    kernel = np.random.default_rng(1).normal(0, 1, (64, 8)).astype(np.float32)
    got = format.encode(jnp.asarray(kernel))
    per_group = 64 // got.scales.shape[0]
    step = np.repeat(np.asarray(got.scales, np.float64), per_group, axis=0)
    error = np.abs(np.asarray(got.decode(), np.float64) - kernel)
    clips = {"bfloat16": 2.0**-8, "e4m3": 2.0**-4}.get(format.scale, 0.0)
    assert np.all(error <= step / 2 + np.abs(kernel) * clips + 2.0**-20)


@pytest.mark.parametrize("format", [f for f in FORMATS if f.symmetric], ids=str)
def test_symmetric_codes_change_sign_with_the_kernel(format):
    kernel = jax.random.normal(jax.random.key(2), (16, 5))
    np.testing.assert_array_equal(format.encode(-kernel).codes, -format.encode(kernel).codes)


@pytest.mark.parametrize("format", [f for f in FORMATS if f.scale != "e4m3"], ids=str)
def test_codes_do_not_change_where_the_kernel_is_scaled_by_a_power_of_two(format):
    kernel = jax.random.normal(jax.random.key(3), (16, 5))
    plain, scaled = format.encode(kernel), format.encode(kernel * 2.0**-40)
    np.testing.assert_array_equal(plain.codes, scaled.codes)
    np.testing.assert_array_equal(plain.scales * 2.0**-40, scaled.scales)


def test_encoding_what_was_decoded_gives_the_same_codes():
    kernel = jax.random.normal(jax.random.key(4), (64, 16))
    for format in (Int(8), Int(4, 16), Int(4, 16, "bfloat16"), Int(2, 8)):
        codes = format.encode(kernel)
        np.testing.assert_array_equal(format.encode(codes.decode()).codes, codes.codes)


def test_groups_are_consecutive_along_the_reduction_axis():
    kernel = jax.random.normal(jax.random.key(5), (32, 6))
    whole = Int(4, group=8).encode(kernel)
    for g in range(4):
        part = Int(4).encode(kernel[8 * g : 8 * g + 8])
        np.testing.assert_array_equal(whole.codes[8 * g : 8 * g + 8], part.codes)
        np.testing.assert_array_equal(whole.scales[g], part.scales[0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_kernels_are_computed_in_float32(dtype):
    kernel = jax.random.normal(jax.random.key(6), (16, 4)).astype(dtype)
    got, want = Int(8).encode(kernel), Int(8).encode(kernel.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_encode_maps_over_stacked_kernels():
    kernels = jax.random.normal(jax.random.key(7), (3, 16, 4))
    format = Int(4, group=8, symmetric=False)
    stacked = jax.vmap(format.encode)(kernels)
    apart = jax.tree.map(lambda *planes: jnp.stack(planes), *map(format.encode, kernels))
    jax.tree.map(np.testing.assert_array_equal, stacked, apart)


@pytest.mark.parametrize(
    ("format", "size", "bits"),
    [
        (Int(8), 64, 8.5),  # 32 bits of scale for 64 elements
        (Int(4, 64, "bfloat16"), 128, 4.25),
        (Int(4, 32, "e8m0"), 128, 4.25),
        (Int(4, 32, "bfloat16", symmetric=False), 64, 4.75),
    ],
)
def test_bits_of_an_element_include_its_share_of_the_scale(format, size, bits):
    assert format.bits_per_element(size) == bits


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=f"2 <= bits <= 8, got bits={bits}"):
        Int(bits)


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="at least 1 element, got group=0"):
        Int(4, group=0)


def test_a_group_that_does_not_divide_the_axis_is_refused():
    with pytest.raises(ValueError, match=r"int4, groups of 6, .* multiple of 6, got 8; choose"):
        Int(4, group=6).encode(jnp.ones((8, 2)))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_same_kernel_gets_the_same_codes_in_every_program(format):
    """Whole, by output, by input and eagerly: left to XLA, a division is not the same in all."""
    kernel = jax.random.normal(jax.random.key(8), (256, 96)) * 0.05
    want = format.encode(kernel)
    by_output = jax.vmap(lambda column: format.encode(column[:, None]), 1, 1)(kernel)
    per_group = 256 // want.scales.shape[0]
    spread = jax.tree.map(lambda plane: jnp.repeat(plane, per_group, axis=0), want[1:])
    by_input = jax.lax.map(lambda row: format.round(*row), (kernel, *spread))
    jax.tree.map(np.testing.assert_array_equal, encode(format, kernel), want)
    np.testing.assert_array_equal(by_output.codes[..., 0], want.codes)
    np.testing.assert_array_equal(by_input, want.codes)
    np.testing.assert_array_equal(format.round(kernel, *spread), want.codes)
