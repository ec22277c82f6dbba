"""Masks in bytes and in bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.sparsity import Mask
from gossamer.sparsity.selection import count_marks


@pytest.mark.parametrize("shape", [(1,), (8,), (9, 3), (16, 2), (3, 5, 2)], ids=str)
def test_bits_say_what_bytes_say_and_take_an_eighth_of_the_first_axis(shape):
    keep = np.random.default_rng(0).random(shape) < 0.5
    packed, plain = Mask.of(jnp.asarray(keep), packed=True), Mask.of(jnp.asarray(keep))
    assert packed.stored.shape == (-(-shape[0] // 8), *shape[1:])
    assert (packed.nbytes, plain.nbytes) == (packed.stored.size, keep.size)
    np.testing.assert_array_equal(packed.keep(shape), keep)
    np.testing.assert_array_equal(plain.keep(shape), keep)


@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "bits"])
@pytest.mark.parametrize(
    "shape", [(1,), (8,), (3, 4), (9, 3), (16, 12), (3, 5, 8), (0, 4)], ids=str
)
def test_what_is_kept_and_where_masks_differ_is_counted(shape, packed):
    random = np.random.default_rng(1)
    one, two = random.random(shape) < 0.7, random.random(shape) < 0.4
    mask, other = Mask.of(jnp.asarray(one), packed), Mask.of(jnp.asarray(two), packed)
    assert (int(mask.kept()), int(mask.flips(other))) == (one.sum(), (one != two).sum())
    assert int(mask.flips(mask)) == 0


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 2**16))
def test_marks_of_any_shape_are_counted_under_vmap_too(rows, columns, seed):
    marks = np.random.default_rng(seed).random((2, rows, columns)) < 0.5
    assert int(count_marks(jnp.asarray(marks))) == marks.sum()
    np.testing.assert_array_equal(jax.vmap(count_marks)(jnp.asarray(marks)), marks.sum((1, 2)))


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
