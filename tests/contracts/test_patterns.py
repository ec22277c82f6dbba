"""What every sparsity pattern must do. A new pattern joins by one line in `PATTERNS`."""

import copy
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Block, Channel, Unstructured

PATTERNS = {  # a pattern and how many of 16 x 12 weights it prunes
    "NM": (NM(1, 4), 144),
    "Unstructured": (Unstructured(0.3), 57),  # floor(0.3 * 192)
    "Block": (Block(0.5, (4, 2)), 96),
    "Channel": (Channel(0.25), 48),
}
SCORES = jax.random.uniform(jax.random.key(0), (16, 12))


@pytest.fixture(params=PATTERNS)
def pattern(request):
    return PATTERNS[request.param][0]


@pytest.mark.parametrize(("pattern", "pruned"), PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("scores", [SCORES, jnp.ones((16, 12))], ids=["random", "all_equal"])
def test_mask_prunes_exactly_as_many_as_it_says(pattern, pruned, scores):
    mask = pattern.mask(scores, 0)
    assert (mask.dtype, mask.shape) == (jnp.bool_, scores.shape)
    assert mask.size - int(mask.sum()) == pruned


def test_mask_moves_with_the_axis(pattern):
    for axis in (1, -1):
        np.testing.assert_array_equal(pattern.mask(SCORES.T, axis), pattern.mask(SCORES, 0).T)
    np.testing.assert_array_equal(pattern.mask(SCORES, -2), pattern.mask(SCORES, 0))


def test_mask_is_the_same_under_jit_and_vmap(pattern):
    want = pattern.mask(SCORES, 0)
    np.testing.assert_array_equal(jax.jit(lambda s: pattern.mask(s, 0))(SCORES), want)
    stacked = jax.vmap(lambda s: pattern.mask(s, 0))(jnp.stack([SCORES, -SCORES]))
    np.testing.assert_array_equal(stacked[0], want)
    np.testing.assert_array_equal(stacked[1], pattern.mask(-SCORES, 0))


def test_masking_again_changes_nothing(pattern):
    mask = pattern.mask(SCORES, 0)
    np.testing.assert_array_equal(pattern.mask(jnp.where(mask, SCORES, 0), 0), mask)


def test_a_nan_score_is_kept(pattern):
    assert bool(pattern.mask(SCORES.at[7, 5].set(jnp.nan), 0)[7, 5])


@pytest.mark.parametrize("shape", [(16, 12), (10, 12), (16, 7), (6, 7)], ids=str)
def test_mask_refuses_what_check_refuses_and_names_the_shape(pattern, shape):
    try:
        pattern.check(shape, 0)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            pattern.mask(jnp.ones(shape), 0)
        return
    assert pattern.mask(jnp.ones(shape), 0).shape == shape


@pytest.mark.parametrize("name", ["NM", "Block"])
def test_a_refused_shape_is_named(name):
    with pytest.raises(ValueError, match=r"got 10 .*in shape \(10, 12\)"):
        PATTERNS[name][0].check((10, 12), 0)


def test_pattern_is_a_value(pattern):
    twin = copy.deepcopy(pattern)
    assert twin == pattern
    assert hash(twin) == hash(pattern)
    recipe = Recipe(rules=(Rule(path=".*", pattern=pattern),))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
