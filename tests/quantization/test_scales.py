import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gossamer.quantization.scales import (
    SMALLEST,
    floor_exponent,
    power_of_two,
    round_scale,
    scale_from_bytes,
    scale_to_bytes,
)

EXPONENTS = np.arange(-126, 128)
POWERS = np.ldexp(np.float32(1), EXPONENTS).astype(np.float32)


@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_exponents_are_exact_at_and_beside_every_power_of_two(run):
    """Where a rounded log2 is off: below 8, 256, 2^20, ... it rounds up to the whole number."""
    get = run(floor_exponent)
    above, below = (np.nextafter(POWERS[1:-1], np.float32(end)) for end in (np.inf, 0))
    for values, want in (
        (POWERS, EXPONENTS),
        (-POWERS, EXPONENTS),
        (above, EXPONENTS[1:-1]),
        (below, EXPONENTS[1:-1] - 1),
    ):
        np.testing.assert_array_equal(get(jnp.asarray(values)), want)


@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_powers_of_two_are_exact(run):
    np.testing.assert_array_equal(run(power_of_two)(jnp.asarray(EXPONENTS)), POWERS)
    assert jnp.isnan(run(power_of_two)(jnp.int32(128)))


def test_trap_exp2_is_not_exact_so_powers_are_made_of_bits():
    off = np.asarray(jnp.exp2(EXPONENTS.astype(np.float32))) != POWERS
    if not off.any():
        pytest.skip("exp2 is exact on this machine")
    np.testing.assert_array_equal(power_of_two(jnp.asarray(EXPONENTS)), POWERS)


def test_trap_subnormal_numbers_may_count_as_0_so_no_scale_is_one():
    """2^-127 x 2^127 is 1, or 0 where subnormal numbers are flushed: no result may depend on it."""
    tiny = np.float32(2.0**-127)
    scales = round_scale(jnp.array([tiny, SMALLEST, 0.0]), "e8m0")
    np.testing.assert_array_equal(scales, np.array([1, SMALLEST, 1], np.float32))


def test_trap_a_cast_to_e8m0_rounds_to_nearest_so_exponents_are_integers():
    cast = np.array([1.5, 0.75, 1.4], np.float32).astype(ml_dtypes.float8_e8m0fnu)
    np.testing.assert_array_equal(cast.astype(np.float32), [2, 1, 1])  # 1.4 would clip
    np.testing.assert_array_equal(round_scale(jnp.array([1.5, 0.75, 1.4]), "e8m0"), [2, 1, 2])


def test_trap_a_cast_to_int8_truncates_so_numbers_are_rounded_first():
    assert jnp.array([1.9, -1.9]).astype(jnp.int8).tolist() == [1, -1]


def test_every_byte_of_a_one_byte_scale_means_what_ml_dtypes_says():
    octets = np.arange(256, dtype=np.uint8)
    for kind, dtype, first in (
        ("e8m0", ml_dtypes.float8_e8m0fnu, 1),  # byte 0 is 2^-127, which float32 may flush
        ("e4m3", ml_dtypes.float8_e4m3fn, 0),
    ):
        got = scale_from_bytes(jnp.asarray(octets[first:]), kind)
        np.testing.assert_array_equal(got, octets[first:].view(dtype).astype(np.float32))


def test_nan_scales_have_a_byte_of_their_own():
    assert scale_to_bytes(jnp.array([jnp.nan]), "e8m0")[0] == 255
    assert jnp.isnan(scale_from_bytes(jnp.array([255], jnp.uint8), "e8m0"))[0]
