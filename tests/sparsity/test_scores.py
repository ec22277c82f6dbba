import jax
import jax.numpy as jnp
import numpy as np

from gossamer.sparsity import NM, magnitude, random, wanda

# The sheet of the interplay paper, section 9.4: rows are outputs, inputs as `X` there.
KERNEL = np.array(
    [
        [0.9, -0.4, 0.35, 0.1, -0.6, 0.25, 0.5, -0.05],
        [0.2, 0.7, -0.3, 0.65, 0.15, -0.8, 0.05, 0.45],
    ],
    np.float32,
).T
SQUARES = np.array([3, 3, 6, 3, 3, 6, 3, 10], np.float32)  # half the diagonal of H
WANDA_2_4 = [
    [0.9, 0, 0.35, 0, -0.6, 0, 0.5, 0],
    [0, 0.7, 0, 0.65, 0, -0.8, 0, 0.45],
]
MAGNITUDE_2_4 = [
    [0.9, -0.4, 0, 0, -0.6, 0, 0.5, 0],
    [0, 0.7, 0, 0.65, 0, -0.8, 0, 0.45],
]


def test_magnitude_2_4_golden():
    kept = np.where(NM(2, 4).mask(magnitude(jnp.array(KERNEL)), 0), KERNEL, 0)
    np.testing.assert_array_equal(kept.T, np.array(MAGNITUDE_2_4, np.float32))


def test_wanda_2_4_golden():
    scores = wanda(jnp.array(KERNEL), jnp.sqrt(SQUARES))
    kept = np.where(NM(2, 4).mask(scores, 0), KERNEL, 0)
    np.testing.assert_array_equal(kept.T, np.array(WANDA_2_4, np.float32))


def test_wanda_mask_is_the_same_for_sums_and_means_of_squares():
    kernel = jax.random.normal(jax.random.key(0), (32, 8))
    norm = jax.random.uniform(jax.random.key(1), (32,))
    mean = norm / 4  # root of the mean over 16 tokens: exact, 4 is a power of two
    np.testing.assert_array_equal(
        NM(2, 4).mask(wanda(kernel, norm), 0), NM(2, 4).mask(wanda(kernel, mean), 0)
    )


def test_wanda_with_equal_inputs_is_magnitude():
    kernel = jax.random.normal(jax.random.key(2), (8, 3))
    np.testing.assert_array_equal(wanda(kernel, jnp.ones(8)), magnitude(kernel))


def test_random_scores_follow_the_key_and_not_the_kernel():
    kernel = jax.random.normal(jax.random.key(3), (64, 64))
    first = random(kernel, jax.random.key(4))
    np.testing.assert_array_equal(first, random(2 * kernel, jax.random.key(4)))
    assert not np.array_equal(first, random(kernel, jax.random.key(5)))
    assert first.min() >= 0
    assert first.max() < 1
    np.testing.assert_allclose(first.mean(), 0.5, atol=0.02)  # 4 standard errors of 4096 draws
