import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.quantization import E2M1, Codebook


def test_e2m1_values_are_those_of_ml_dtypes_doubled():
    floats = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(np.array(E2M1), 2 * floats)


def test_e2m1_rounds_as_ml_dtypes_casts_numbers_and_ties():
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)
    random = np.random.default_rng(0).uniform(-6, 6, 100_000).astype(np.float32)
    values = np.concatenate([middles, -middles, np.nextafter(middles, 0), random])
    want = values.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    got = Codebook(E2M1).nearest(jnp.asarray(2 * values))
    np.testing.assert_array_equal(np.asarray(got), 2 * want)


books = st.lists(st.integers(-127, 127), min_size=13, max_size=13).map(
    lambda values: (0, 1, -1, *values)
)


@settings(max_examples=30, deadline=None)
@given(books, st.integers(0, 2**32 - 1))
def test_every_element_takes_a_nearest_value_and_none_lies_outside(values, seed):
    format = Codebook(values, group=8)
    kernel = jax.random.normal(jax.random.key(seed), (16, 3))
    codes = format.encode(kernel)
    scaled = np.asarray(kernel, np.float64).reshape(2, 8, 3) / np.asarray(codes.scales)[:, None]
    least = np.abs(scaled[..., None] - np.array(values)).min(-1)
    off = np.abs(scaled - np.asarray(codes.codes, np.float64).reshape(2, 8, 3))
    assert np.isin(codes.codes, values).all()
    assert (off <= least + 1e-4).all()
    assert scaled.max() <= max(values) * (1 + 1e-6)
    assert scaled.min() >= min(values) * (1 + 1e-6)


def test_a_group_of_zeros_has_scale_1_and_codes_0():
    codes = Codebook(E2M1, group=4).encode(jnp.zeros((8, 2)))
    assert (codes.scales == 1).all()
    assert (codes.codes == 0).all()


@pytest.mark.parametrize(
    "values",
    [E2M1[:15], (1, *E2M1[1:]), (0, *range(1, 16)), (0, *range(-15, 0)), (0, 1, -128, *[0] * 13)],
)
def test_values_that_are_no_codebook_are_refused(values):
    with pytest.raises(ValueError, match="Codebook needs 16 values"):
        Codebook(values)
