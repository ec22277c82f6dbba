"""Masks that leave a method, are kept as NumPy arrays, and come into another."""

import jax
import numpy as np
import optax
import pytest

from gossamer.sparsity import Unstructured
from gossamer.sparsity.methods import SRSTE, Frozen, OneShot
from tests.sparsity.methods.problem import kernels, parameters, recipe, stepper, train

HALF = recipe(Unstructured(0.5))


def by_rows():
    """Every other row of every kernel, which no score would choose, as NumPy arrays."""
    return {
        "first.kernel": np.tile(np.arange(32)[:, None] % 2 == 0, (1, 16)),
        "second.kernel": np.tile(np.arange(16)[:, None] % 2 == 0, (1, 8)),
    }


@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "bits"])
def test_masks_come_out_as_they_were_given_and_are_frozen_so(packed):
    method = Frozen(recipe=HALF, packed=packed)
    optimizer, params, given = method.wrap(optax.adamw(1e-2)), parameters(), by_rows()
    state = method.with_masks(optimizer.init(params), given)
    for path, mask in method.masks(params, state).items():
        np.testing.assert_array_equal(mask, given[path])
    after, state = train(method, optimizer, 3, params, state)
    for layer, kernel in kernels(after).items():
        np.testing.assert_array_equal(kernel != 0, given[f"{layer}.kernel"])
        assert (kernel[::2] != kernels(parameters())[layer][::2]).all()


def test_what_one_method_found_is_trained_on_by_another():
    finder, params = SRSTE(recipe=recipe()), parameters()
    masks = jax.tree.map(np.asarray, finder.masks(params, finder.init(params)))
    method = Frozen(recipe=recipe(), packed=True)
    optimizer = method.wrap(optax.adam(1e-2))
    # The weights of SR-STE are dense: without the masks nothing would be pruned.
    state = method.with_masks(optimizer.init(params), masks)
    after, state = train(method, optimizer, 3, params, state)
    for layer, kernel in kernels(after).items():
        np.testing.assert_array_equal(kernel != 0, masks[f"{layer}.kernel"])


def test_masks_of_some_weights_leave_those_of_the_others():
    method, params = Frozen(recipe=HALF), parameters()
    given = {"second.kernel": by_rows()["second.kernel"]}
    state = method.with_masks(method.wrap(optax.sgd(0.1)).init(params), given)
    masks = method.masks(params, state)
    assert masks["first.kernel"].all()
    assert int(masks["second.kernel"].sum()) == 64


def test_given_masks_stay_until_the_schedule_has_new_ones():
    method = OneShot(recipe=recipe(Unstructured(0.75)), at=2)
    optimizer, params, given = method.wrap(optax.sgd(0.1)), parameters(), by_rows()
    state = method.with_masks(optimizer.init(params), given)
    step = stepper(method, optimizer)
    for _ in range(2):
        params, state = step(params, state)
        np.testing.assert_array_equal(
            method.masks(params, state)["first.kernel"], given["first.kernel"]
        )
    params, state = step(params, state)
    kept = np.asarray(method.masks(params, state)["first.kernel"])
    assert kept.mean() == 0.25
    assert not (kept & ~given["first.kernel"]).any()  # what is 0 has the lowest score


def test_masks_for_other_weights_or_of_other_shapes_are_refused():
    method, packed = Frozen(recipe=HALF), Frozen(recipe=HALF, packed=True)
    params = parameters()
    states = {each: each.wrap(optax.sgd(0.1)).init(params) for each in (method, packed)}
    with pytest.raises(ValueError, match=r"No mask is kept for \['first\.bias'\]; masks are for"):
        method.with_masks(states[method], {"first.bias": np.ones(16, bool)})
    turned = {"first.kernel": np.ones((16, 32), bool)}
    with pytest.raises(ValueError, match=r"first\.kernel has shape \(16, 32\); \(32, 16\) is need"):
        method.with_masks(states[method], turned)
    with pytest.raises(ValueError, match=r"\(16, 32\); \(4, 16\) is needed, after packing"):
        packed.with_masks(states[packed], turned)


def test_a_state_of_another_recipe_is_not_taken_for_ones_own():
    method, other = SRSTE(recipe=recipe()), SRSTE(recipe=HALF)
    params = parameters()
    state = other.wrap(optax.sgd(0.1)).init(params)
    with pytest.raises(ValueError, match=r"SRSTE finds 0 states of its own .* of \['SRSTE'\]"):
        method.weights(params, state)
    both = method.wrap(optax.sgd(0.1)).init(params), state
    assert method.find(both).method == method
