import functools

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import magnitude_mask
from gossamer.compression.interplay import dot_errors, lp_norm, relative_error
from gossamer.quantization import MX, Int
from gossamer.sparsity import NM

TWO_OF_FOUR = functools.partial(magnitude_mask, pattern=NM(2, 4))


def column(values):
    return jnp.array(values, jnp.float32)[:, None]


def test_golden_dot_product_that_loses_more_than_the_sum_in_the_better_order():
    """Theorem 3.9: the two rounding errors cancel until pruning takes one of them away."""
    found = dot_errors(column([0, 7, 7, 0]), column([7, 1.4, 0.6, 0]), Int(4), TWO_OF_FOUR)
    got = [float(e[0]) for e in found]
    np.testing.assert_allclose(got, [0, 4.2, 7.0, 2.8], atol=1e-6)
    assert float(found.additional[0]) == pytest.approx(2.8, abs=1e-6)


@pytest.mark.parametrize("format", [Int(4), MX("e2m1", group=16), MX("int8", group=16)], ids=str)
def test_the_error_of_a_dot_product_is_that_of_its_parts_and_the_cross_term(format):
    rng = np.random.default_rng(3)
    x, w = (jnp.asarray(rng.normal(size=(16, 20_000)), jnp.float32) for _ in range(2))
    found = dot_errors(x, w, format, TWO_OF_FOUR)
    # Sums of 16 products of a few units each, in float64.
    np.testing.assert_allclose(
        found.combined, found.quantized + found.sparsified + found.cross, atol=1e-12
    )
    pruned = dot_errors(x, jnp.where(TWO_OF_FOUR(w), w, 0), format, lambda w: w == w)
    np.testing.assert_allclose(found.combined, pruned.quantized + found.sparsified, atol=1e-12)


def test_a_fifth_of_random_dot_products_lose_more_than_the_sum():
    """20.4 % of the sheet's 20,000; a share of 0.2 of as many has a standard error of 0.3 %."""
    rng = np.random.default_rng(3)
    x, w = (jnp.asarray(rng.normal(size=(16, 20_000)), jnp.float32) for _ in range(2))
    found = dot_errors(x, w, Int(4), TWO_OF_FOUR)
    assert np.mean(found.additional > 0) == pytest.approx(0.204, abs=3 * 0.0029 * 2**0.5)


def test_norms_are_those_of_numpy():
    error = np.random.default_rng(0).normal(size=(5, 3))
    for p in (1, 1.5, 2, 4):
        np.testing.assert_allclose(
            lp_norm(error, p, axis=0), np.linalg.norm(error, ord=p, axis=0), rtol=1e-14
        )
        np.testing.assert_allclose(lp_norm(error, p), np.linalg.norm(error.ravel(), ord=p))


def test_a_norm_below_one_is_refused():
    with pytest.raises(ValueError, match=r"p >= 1, got p=0\.5"):
        lp_norm(np.ones(3), 0.5)


def test_the_relative_error_is_of_the_kernel_and_a_kernel_of_zeros_has_none():
    assert relative_error(column([3, 4]), column([3, 0])) == pytest.approx(0.8, rel=1e-15)
    assert relative_error(column([0, 0]), column([0, 0])) == 0
