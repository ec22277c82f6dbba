"""What pruning methods keep, by hand: the cases of JaxPruner's tests, decided by us."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import Periodic, Unstructured
from gossamer.sparsity.methods import (
    STE,
    Frozen,
    GlobalMagnitude,
    GlobalSaliency,
    GradualMagnitude,
    OneShot,
    RandomPruning,
    Saliency,
    StaticRandom,
)
from tests.sparsity.methods.problem import kernels, loss, parameters, recipe, stepper, train

HALF = Unstructured(0.5)
NOW = Periodic()


def pruned(method, params, grads=None, inner=None):
    """Masks after one step, by path."""
    optimizer = method.wrap(optax.sgd(0.0) if inner is None else inner)
    state = optimizer.init(params)
    weights = method.weights(params, state)
    grads = jax.tree.map(jnp.zeros_like, weights) if grads is None else grads
    _, state = optimizer.update(grads, state, params, weights=weights)
    return method.masks(params, state)


def column(*values):
    return {"kernel": jnp.asarray(values, jnp.float32)[:, None]}


def test_magnitude_keeps_the_largest_and_saliency_the_largest_products_with_gradients():
    params, grads = column(4.0, -3.0, 2.0, 1.0), column(0.1, 0.1, -5.0, 9.0)
    by_size = pruned(GradualMagnitude(recipe=recipe(HALF), schedule=NOW), params, grads)
    by_product = pruned(Saliency(recipe=recipe(HALF), schedule=NOW), params, grads)
    np.testing.assert_array_equal(by_size["kernel"][:, 0], [True, True, False, False])
    np.testing.assert_array_equal(by_product["kernel"][:, 0], [False, False, True, True])


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_counts_are_the_floor_of_what_is_pruned_not_rounded_half_to_even(size):
    # JaxPruner keeps 1, 2, 2, 4, 4 of them.
    mask = pruned(OneShot(recipe=recipe(HALF)), column(*range(size)))["kernel"]
    assert mask.sum() == size - size // 2


def test_ties_keep_the_lower_index():
    mask = pruned(OneShot(recipe=recipe(HALF)), column(1.0, 1.0, 1.0, 1.0))["kernel"]
    np.testing.assert_array_equal(mask[:, 0], [True, True, False, False])


def test_random_pruning_keeps_half_differs_by_seed_and_what_is_pruned_stays_so():
    params = {"kernel": jnp.ones((64, 8))}
    masks = [
        pruned(RandomPruning(recipe=recipe(HALF), schedule=NOW, seed=seed), params)["kernel"]
        for seed in (0, 1)
    ]
    assert [int(mask.sum()) for mask in masks] == [256, 256]
    assert (masks[0] != masks[1]).any()
    method = RandomPruning(recipe=recipe(HALF), schedule=NOW)
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    step = stepper(method, optimizer)
    first, state = step(params, optimizer.init(params))
    once, again = method.masks(first, state), method.masks(*step(first, state))
    for path, mask in once.items():
        np.testing.assert_array_equal(mask, again[path])


@pytest.mark.parametrize("kind", [GlobalMagnitude, GlobalSaliency])
def test_one_threshold_for_all_keeps_all_of_a_small_weight_and_a_quarter_of_a_larger_one(kind):
    params = {
        "small": {"kernel": jnp.asarray([[3.0], [4.0]])},
        "large": {"kernel": jnp.asarray([[9.0], [1.0], [1.0], [1.0]])},
    }
    grads = jax.tree.map(jnp.ones_like, params)
    masks = pruned(kind(recipe=recipe(HALF), schedule=NOW), params, grads)
    np.testing.assert_array_equal(masks["small.kernel"][:, 0], [True, True])
    np.testing.assert_array_equal(masks["large.kernel"][:, 0], [True, False, False, False])


def test_without_normalisation_the_layer_of_large_weights_takes_the_room():
    params = {"a": {"kernel": jnp.full((2, 1), 9.0)}, "b": {"kernel": jnp.full((2, 1), 0.1)}}
    masks = pruned(GlobalMagnitude(recipe=recipe(HALF), schedule=NOW, normalize=False), params)
    assert masks["a.kernel"].all()
    assert not masks["b.kernel"].any()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_static_masks_have_the_exact_count_from_the_first_forward_pass_on(sparsity):
    params = {"kernel": jnp.ones((40, 5))}
    method = StaticRandom(recipe=recipe(Unstructured(sparsity)))
    state = method.wrap(optax.adam(1e-2)).init(params)
    assert jnp.sum(method.weights(params, state)["kernel"] == 0) == round(200 * sparsity)


def test_ste_prunes_half_at_every_step_and_keeps_dense_weights():
    method = STE(recipe=recipe(HALF))
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    state, step = optimizer.init(params), stepper(method, optimizer)
    for _ in range(10):
        params, state = step(params, state)
        seen = kernels(method.weights(params, state))
        assert all(np.mean(kernel == 0) == 0.5 for kernel in seen.values())
        assert all((kernel != 0).all() for kernel in kernels(params).values())


def test_weights_that_no_rule_selects_are_the_same_objects_and_train_densely():
    params = parameters()
    method = OneShot(recipe=recipe(HALF, path=r"first\.kernel"))
    state = method.wrap(optax.sgd(0.1)).init(params)
    weights = method.weights(params, state)
    assert weights["second"]["kernel"] is params["second"]["kernel"]
    assert list(method.masks(params, state)) == ["first.kernel"]


def test_every_rule_has_its_own_pattern():
    rules = (
        Rule(path=r"first\.kernel", pattern=Unstructured(0.75)),
        Rule(path=r"second\.kernel", pattern=Unstructured(0.25)),
    )
    masks = pruned(OneShot(recipe=Recipe(rules=rules)), parameters())
    assert masks["first.kernel"].mean() == 0.25
    assert masks["second.kernel"].mean() == 0.75


def test_sparse_parameters_stay_sparse_under_a_frozen_mask_without_being_told():
    params = parameters()
    zeros = OneShot(recipe=recipe(HALF))
    params, _ = train(zeros, zeros.wrap(optax.sgd(0.1)), 1, params)
    frozen = Frozen(recipe=recipe(HALF))
    after, _ = train(frozen, frozen.wrap(optax.adam(1e-2)), 3, params)
    for name, kernel in kernels(after).items():
        np.testing.assert_array_equal(kernel == 0, kernels(params)[name] == 0)
    assert loss(after, jnp.ones((1, 32)), jnp.zeros((1, 8))) > 0
