import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.methods import magnitude_mask, prune_codes, random_mask, wanda_mask
from gossamer.quantization import E2M1, HBFP, MX, Codebook, Int
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


INSIDE = [Int(4), Int(8, group=16), Int(2, group=8), Codebook(E2M1, group=16), HBFP(4, group=32)]
INSIDE += [MX(name, group=32) for name in ("e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8")]


def blurred(size=64, out=300):
    """Weights of which many round to equal values."""
    kernel = np.random.default_rng(5).normal(size=(size, out))
    return jnp.asarray(kernel, jnp.float32)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8)], ids=str)
@pytest.mark.parametrize("format", INSIDE, ids=str)
def test_quantizing_first_loses_nothing_with_the_mask_of_the_original_magnitudes(format, pattern):
    kernel = blurred()
    codes, mask = prune_codes(format.encode(kernel), kernel, pattern)
    want = format.encode(jnp.where(magnitude_mask(kernel, pattern), kernel, 0))
    for got, expected in zip(jax.tree.leaves(codes), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(got.astype(jnp.float32), expected.astype(jnp.float32))
    np.testing.assert_array_equal(mask, magnitude_mask(kernel, pattern))


def test_the_mask_of_the_rounded_weights_is_another_and_loses_more():
    kernel, format = blurred(), Int(4, group=16)
    rounded = format.quantize(kernel)
    spoilt = jnp.where(magnitude_mask(rounded, NM(2, 4)), rounded, 0)
    kept = prune_codes(format.encode(kernel), kernel, NM(2, 4))[0].decode()
    assert float(jnp.abs(kernel - kept).sum()) < float(jnp.abs(kernel - spoilt).sum())


def test_a_mask_that_drops_the_largest_weight_leaves_another_scale_than_pruning_first():
    """The conditions are needed: Wanda's mask may drop the weight that the scale came from."""
    kernel, format = jnp.array([[7.0], [3.0], [1.0], [1.0]]), Int(4)
    mask = wanda_mask(kernel, jnp.array([0.1, 1.0, 1.0, 0.1]), NM(2, 4))
    np.testing.assert_array_equal(mask.ravel(), [False, True, True, False])
    first = format.encode(jnp.where(mask, kernel, 0))
    assert (first.codes != format.encode(kernel).masked(mask).codes).any()


def test_pruned_codes_of_an_asymmetric_grid_are_zero_points():
    kernel, format = blurred(), Int(4, group=16, symmetric=False)
    codes, mask = prune_codes(format.encode(kernel), kernel, NM(2, 4))
    values = np.asarray(codes.decode())
    assert (values[~np.asarray(mask)] == 0).all()
    np.testing.assert_array_equal(values[np.asarray(mask)], format.quantize(kernel)[mask])


def test_codes_of_another_kernel_are_refused():
    with pytest.raises(ValueError, match=r"Codes \(8, 2\) are not those of a kernel \(4, 2\)"):
        prune_codes(Int(4).encode(jnp.ones((8, 2))), jnp.ones((4, 2)), NM(2, 4))
