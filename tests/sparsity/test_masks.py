"""Masks in bytes and in bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.sparsity import Mask


@pytest.mark.parametrize("shape", [(1,), (8,), (9, 3), (16, 2), (3, 5, 2)], ids=str)
def test_bits_say_what_bytes_say_and_take_an_eighth_of_the_first_axis(shape):
    keep = np.random.default_rng(0).random(shape) < 0.5
    packed, plain = Mask.of(jnp.asarray(keep), packed=True), Mask.of(jnp.asarray(keep))
    assert packed.stored.shape == (-(-shape[0] // 8), *shape[1:])
    assert (packed.nbytes, plain.nbytes) == (packed.stored.size, keep.size)
    np.testing.assert_array_equal(packed.keep(shape), keep)
    np.testing.assert_array_equal(plain.keep(shape), keep)


def test_the_lowest_place_is_in_the_lowest_bit():
    keep = jnp.array([True, False, False, True, False, False, False, False, True])
    np.testing.assert_array_equal(Mask.of(keep, packed=True).stored, [0b1001, 1])


@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "bits"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_kept_is_zero_whatever_it_was(packed, bad):
    mask = Mask.of(jnp.array([True, False, True]), packed)
    weight = jnp.array([1.0, bad, 2.0], jnp.bfloat16)
    seen = mask.apply(weight)
    assert seen.dtype == jnp.bfloat16
    np.testing.assert_array_equal(seen.astype(jnp.float32), [1, 0, 2])
    gradient = jax.grad(lambda weight: mask.apply(weight).astype(jnp.float32).sum())(weight)
    np.testing.assert_array_equal(gradient.astype(jnp.float32), [1, 0, 1])
