"""Codes times codes, rows as codes, and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Codes, Int, encode_rows, multiply_codes
from gossamer.quantization.products import encode_tensor, uniform_noise

X = jax.random.normal(jax.random.key(0), (7, 24))


@pytest.mark.parametrize("format", [Int(8), Int(4, scale="bfloat16"), Int(2)], ids=str)
def test_rows_have_the_codes_that_columns_have(format):
    rows, columns = encode_rows(X, format), format.encode(X.T)
    np.testing.assert_array_equal(rows.codes, columns.codes.T)
    np.testing.assert_array_equal(rows.scales, columns.scales.T)
    np.testing.assert_array_equal(rows.decode(), columns.decode().T)


def test_rows_rounded_with_noise_have_the_codes_that_columns_have():
    noise = jax.random.uniform(jax.random.key(1), X.shape)
    rows, columns = encode_rows(X, Int(4), noise), Int(4).encode(X.T, noise.T)
    np.testing.assert_array_equal(rows.codes, columns.codes.T)
    assert (rows.codes != encode_rows(X, Int(4)).codes).any()


def test_one_scale_for_all_rows_is_that_of_one_long_column():
    tensor, column = encode_tensor(X, Int(8)), Int(8).encode(X.reshape(-1, 1))
    np.testing.assert_array_equal(tensor.codes.ravel(), column.codes.ravel())
    np.testing.assert_array_equal(tensor.scales, column.scales)


def test_groups_are_scaled_and_added_in_order():
    """As the native kernels do: float32 sums of the groups, first to last."""
    random = np.random.default_rng(0)
    rows = random.integers(-127, 128, (5, 64), np.int8)
    kernel = random.integers(-127, 128, (64, 9), np.int8)
    scales = random.uniform(0.5, 2, (4, 9)).astype(np.float32)
    codes = Codes(jnp.asarray(kernel), jnp.asarray(scales))
    got = np.asarray(multiply_codes(jnp.asarray(rows), codes))
    sums = np.einsum("bgi,gio->gbo", rows.reshape(5, 4, 16).astype(int), kernel.reshape(4, 16, 9))
    exact = np.einsum("gbo,go->bo", sums, scales.astype(float))
    sizes = np.einsum("gbo,go->bo", np.abs(sums), scales.astype(float))
    assert (np.abs(got - exact) <= (4 + 3) * 2.0**-24 * sizes).all()


def test_sums_that_may_overflow_are_refused():
    rows, kernel = jnp.zeros((1, 65537), jnp.int8), jnp.zeros((65537, 1), jnp.int8)
    with pytest.raises(ValueError, match="sums of 65537 products may overflow"):
        multiply_codes(rows, Codes(kernel, jnp.ones((1, 1))))


def test_noise_is_uniform_and_differs_by_key_and_place():
    noise = np.asarray(uniform_noise(jax.random.key(0), (512, 512)), np.float64)
    assert noise.min() >= 0
    assert noise.max() < 1
    counts = np.histogram(noise, 64, (0, 1))[0]
    expected = noise.size / 64
    # Chi squared with 63 degrees of freedom: mean 63, deviation 11.2; 5 of them.
    assert np.sum((counts - expected) ** 2 / expected) < 63 + 5 * 11.2
    for other in (
        np.roll(noise, 1, 0),
        np.roll(noise, 1, 1),
        np.asarray(uniform_noise(jax.random.key(1), noise.shape)),
        np.asarray(uniform_noise(jax.random.fold_in(jax.random.key(0), 1), noise.shape)),
    ):
        # Correlations of independent draws have a deviation of 1 / 512.
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 5 / 512
