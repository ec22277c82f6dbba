import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gossamer.quantization.minifloat import MINIFLOATS, nearest_minifloat

# Of OCP MX v1.0 and OFP8 v1.0: bits, mantissa bits, bias, exponents' largest, largest, smallest.
FACTS = {
    "e4m3": (8, 3, 7, 8, 448.0, 2.0**-9),
    "e5m2": (8, 2, 15, 15, 57344.0, 2.0**-16),
    "e3m2": (6, 2, 3, 4, 28.0, 2.0**-4),
    "e2m3": (6, 3, 1, 2, 7.5, 2.0**-3),
    "e2m1": (4, 1, 1, 2, 6.0, 0.5),
}
nearest = jax.jit(nearest_minifloat, static_argnums=1)


def value(code: int, name: str) -> float:
    """What a code stands for, by the formula of the standard; NaN or Inf where it is none."""
    bits, mantissa_bits, bias, _, largest, _ = FACTS[name]
    sign = -1.0 if code >> (bits - 1) else 1.0
    exponent = (code >> mantissa_bits) & ((1 << (bits - 1 - mantissa_bits)) - 1)
    fraction = (code & ((1 << mantissa_bits) - 1)) / 2**mantissa_bits
    if exponent == 0:
        return sign * 2.0 ** (1 - bias) * fraction
    size = 2.0 ** (exponent - bias) * (1 + fraction)
    return sign * size if size <= largest else np.nan


def numbers(name: str) -> np.ndarray:
    """All finite numbers of a float, ascending, zero once."""
    values = np.array([value(code, name) for code in range(2 ** FACTS[name][0])])
    return np.unique(values[np.isfinite(values)])


def by_hand(x: np.ndarray, name: str) -> np.ndarray:
    """In float64: the nearer neighbour, of two the one whose mantissa is even, ends saturate."""
    grid = numbers(name)
    clipped = np.clip(x.astype(np.float64), grid[0], grid[-1])
    above = np.searchsorted(grid, clipped).clip(1, len(grid) - 1)
    low, high = grid[above - 1], grid[above]
    even_low = (np.abs(np.arange(len(grid)) - len(grid) // 2) % 2 == 0)[above - 1]
    down = clipped - low < high - clipped
    tie = clipped - low == high - clipped
    return np.where(down | (tie & even_low), low, high)


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_those_of_the_standard(name):
    kind, (bits, mantissa, bias, highest, largest, smallest) = MINIFLOATS[name], FACTS[name]
    got = (kind.bits, kind.mantissa_bits, kind.lowest_exponent, kind.highest_exponent, kind.largest)
    assert got == (bits, mantissa, 1 - bias, highest, largest)
    assert numbers(name)[numbers(name) > 0][0] == smallest


@pytest.mark.parametrize("name", FACTS)
def test_every_code_decodes_by_the_formula(name):
    codes = np.arange(2 ** FACTS[name][0], dtype=np.uint8)
    got = codes.view(MINIFLOATS[name].kind).astype(np.float64)
    want = np.array([value(int(code), name) for code in codes])
    finite = np.isfinite(got)
    np.testing.assert_array_equal(got[finite], want[finite])
    assert np.isnan(want[~finite]).all()


@pytest.mark.parametrize("name", FACTS)
def test_a_million_random_and_all_boundary_values_round_as_by_hand(name):
    grid = numbers(name).astype(np.float32)
    middles = ((grid[1:].astype(np.float64) + grid[:-1]) / 2).astype(np.float32)
    edges = np.concatenate([grid, middles])
    edges = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    rng = np.random.default_rng(0)
    sizes = np.exp2(rng.uniform(-24, 20, 500_000)) * rng.choice([-1, 1], 500_000)
    plain = rng.uniform(-1.2, 1.2, 500_000) * grid[-1]
    x = np.concatenate([edges, sizes, plain]).astype(np.float32)
    x = x[np.abs(x) >= np.finfo(np.float32).smallest_normal]
    np.testing.assert_array_equal(np.asarray(nearest(x, name), np.float64), by_hand(x, name))


@pytest.mark.parametrize("name", FACTS)
def test_what_is_too_large_saturates_and_nan_stays(name):
    most = FACTS[name][4]
    x = jnp.array([most * 1.04, most * 1.2, 1e38, -1e38, jnp.inf, -jnp.inf, jnp.nan])
    got = np.asarray(nearest(x, name), np.float32)
    np.testing.assert_array_equal(got[:6], [most, most, most, -most, most, -most])
    assert np.isnan(got[6])


@pytest.mark.parametrize("name", FACTS)
def test_stochastic_rounding_goes_to_a_neighbour_in_the_values_own_binade(name):
    grid = numbers(name)
    x = np.random.default_rng(1).uniform(-1, 1, 20_000).astype(np.float32) * grid[-1]
    got = np.asarray(nearest(x, name, jax.random.uniform(jax.random.key(0), x.shape)), np.float64)
    above = np.searchsorted(grid, x).clip(1, len(grid) - 1)
    assert ((got == grid[above - 1]) | (got == grid[above])).all()
    assert (got != np.asarray(nearest(x, name), np.float64)).any()


def test_signs_of_zeros_stay():
    got = nearest(jnp.array([0.0, -0.0, -0.01]), "e2m1")
    assert np.signbit(np.asarray(got, np.float32)).tolist() == [False, True, True]


# What is known of the machine below, and would be silent if it changed.


def test_trap_casts_to_e4m3_and_e5m2_do_not_saturate_so_values_are_clipped_first():
    cast = jnp.array([464.0, 465.0, 1e6]).astype(jnp.float8_e4m3fn).astype(jnp.float32)
    assert cast[0] == 448
    assert not (cast[1:] == 448).any()
    assert jnp.isinf(jnp.array([61440.0]).astype(jnp.float8_e5m2).astype(jnp.float32))[0]
    assert nearest(jnp.array([465.0]), "e4m3").astype(jnp.float32)[0] == 448
    assert nearest(jnp.array([61440.0]), "e5m2").astype(jnp.float32)[0] == 57344


def test_trap_casts_to_fp4_and_fp6_lose_nan_so_it_is_kept_apart():
    for name in ("e3m2", "e2m3", "e2m1"):
        kind = MINIFLOATS[name].kind
        assert np.array([np.nan], np.float32).astype(kind).astype(np.float32)[0] == 0
        assert jnp.isnan(nearest(jnp.array([jnp.nan]), name).astype(jnp.float32))[0]


def test_trap_six_bit_floats_have_no_arrays_so_float8_holds_them():
    for name in FACTS:
        held = np.array(numbers(name), np.float32).astype(MINIFLOATS[name].holder)
        np.testing.assert_array_equal(held.astype(np.float64), numbers(name))
    assert np.dtype(ml_dtypes.float4_e2m1fn).itemsize == 1  # and FP4 would save nothing
