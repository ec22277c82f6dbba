import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.methods import magnitude_mask, random_mask, wanda_mask
from gossamer.sparsity import NM, Block, Channel, Unstructured
from tests.compression.golden_layer import INPUTS, KERNEL

NORM = np.sqrt((INPUTS**2).sum(axis=0))
PATTERNS = {  # pattern: weights kept of a kernel [16, 6]
    NM(2, 4): 48,
    NM(4, 8): 48,
    NM(1, 16): 6,
    Unstructured(0.75): 24,
    Block(0.5, (4, 2)): 48,
    Channel(0.25): 72,
}


def masks(kernel: jax.Array, norm: jax.Array, pattern) -> dict[str, jax.Array]:
    return {
        "magnitude": magnitude_mask(kernel, pattern),
        "wanda": wanda_mask(kernel, norm, pattern),
        "random": random_mask(kernel, jax.random.key(3), pattern),
    }


def test_magnitude_golden():
    kept = np.where(magnitude_mask(KERNEL, NM(2, 4)), KERNEL, 0)
    want = [[0.9, -0.4, 0, 0, -0.6, 0, 0.5, 0], [0, 0.7, 0, 0.65, 0, -0.8, 0, 0.45]]
    np.testing.assert_array_equal(kept.T, np.float32(want))
    assert np.sum((INPUTS @ (kept - KERNEL)) ** 2) == pytest.approx(1.84, abs=5e-6)


def test_wanda_golden():
    kept = np.where(wanda_mask(KERNEL, NORM, NM(2, 4)), KERNEL, 0)
    want = [[0.9, 0, 0.35, 0, -0.6, 0, 0.5, 0], [0, 0.7, 0, 0.65, 0, -0.8, 0, 0.45]]
    np.testing.assert_array_equal(kept.T, np.float32(want))
    assert np.sum((INPUTS @ (kept - KERNEL)) ** 2) == pytest.approx(1.275, abs=5e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("score", ["magnitude", "wanda", "random"])
def test_every_score_fills_every_pattern(score, pattern):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(16, 6)), jnp.float32)
    norm = jnp.asarray(rng.uniform(0.1, 10, size=16), jnp.float32)
    mask = masks(kernel, norm, pattern)[score]
    assert mask.shape == kernel.shape
    assert int(mask.sum()) == PATTERNS[pattern]


@pytest.mark.parametrize("score", ["magnitude", "wanda", "random"])
def test_pattern_that_does_not_fit_is_refused(score):
    with pytest.raises(ValueError, match=r"2:4 needs .* axis 0 .* got 6 in shape \(6, 3\)"):
        masks(jnp.ones((6, 3)), jnp.ones(6), NM(2, 4))[score]


def test_magnitude_compares_the_whole_kernel():
    kernel = jnp.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]])
    want = [[False, True]] * 4
    np.testing.assert_array_equal(magnitude_mask(kernel, Unstructured(0.5)), want)


def test_wanda_compares_within_each_output():
    kernel = jnp.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]])
    norm = jnp.array([9.0, 1.0, 1.0, 1.0])
    want = [[True, True], [False, False], [False, False], [True, True]]
    np.testing.assert_array_equal(wanda_mask(kernel, norm, Unstructured(0.5)), want)


def test_wanda_ties_keep_the_lower_input():
    mask = wanda_mask(jnp.ones((4, 2)), jnp.ones(4), Unstructured(0.5))
    np.testing.assert_array_equal(mask, [[True, True], [True, True], [False, False], [False] * 2])


def test_wanda_with_equal_inputs_is_magnitude():
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(32, 8)), jnp.float32)
    want = magnitude_mask(kernel, NM(2, 4))
    np.testing.assert_array_equal(wanda_mask(kernel, jnp.full(32, 0.5), NM(2, 4)), want)


def test_random_repeats_with_its_key_and_changes_with_it():
    first, again, other = (
        np.asarray(random_mask(jnp.ones((64, 8)), jax.random.key(seed), NM(2, 4)))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
