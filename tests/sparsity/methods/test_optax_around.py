"""Methods inside optax's wrappers, and those around the optimizer that a method wraps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gossamer.sparsity import NM, Periodic, Unstructured
from gossamer.sparsity.methods import SRSTE, Frozen, GradualMagnitude, OneShot
from tests.sparsity.methods.problem import batch, kernels, loss, parameters, recipe, stepper, train

LAYERS = {"first": True, "second": False}


def share_of_zeros(params):
    return {name: float((kernel == 0).mean()) for name, kernel in kernels(params).items()}


def test_a_layer_outside_optax_masked_is_dense_whatever_the_recipe_selects():
    method = OneShot(recipe=recipe())
    optimizer = optax.chain(optax.masked(method.wrap(optax.adam(1e-2)), LAYERS), optax.scale(0.5))
    params = parameters()
    state = optimizer.init(params)
    weights = method.weights(params, state)
    assert weights["second"]["kernel"] is params["second"]["kernel"]
    assert list(method.masks(params, state)) == ["first.kernel"]
    after, state = train(method, optax.masked(method.wrap(optax.adam(1e-2)), LAYERS), 2)
    assert share_of_zeros(after) == {"first": 0.5, "second": 0.0}


def test_groups_of_multi_transform_have_methods_of_their_own():
    halves = SRSTE(recipe=recipe(path=r"first\.kernel"))
    quarters = GradualMagnitude(
        recipe=recipe(Unstructured(0.75), path=r"second\.kernel"), schedule=Periodic()
    )
    optimizer = optax.multi_transform(
        {"halves": halves.wrap(optax.sgd(0.1)), "quarters": quarters.wrap(optax.adam(1e-2))},
        {"first": "halves", "second": "quarters"},
    )

    @jax.jit
    def step(params, state):
        weights = quarters.weights(halves.weights(params, state), state)
        grads = jax.grad(loss)(weights, *batch())
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    params = parameters()
    state = optimizer.init(params)
    for _ in range(2):
        params, state = step(params, state)
    seen = quarters.weights(halves.weights(params, state), state)
    assert share_of_zeros(params) == {"first": 0.0, "second": 0.75}
    assert share_of_zeros(seen) == {"first": 0.5, "second": 0.75}


def test_a_step_that_apply_if_finite_leaves_out_changes_no_mask_and_no_counter():
    method = SRSTE(recipe=recipe())
    optimizer = optax.apply_if_finite(method.wrap(optax.adam(1e-2)), max_consecutive_errors=3)
    params = parameters()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, added):
        weights = method.weights(params, state)
        grads = jax.tree.map(lambda grad: grad + added, jax.grad(loss)(weights, *batch()))
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    same = lambda a, b: jax.tree.all(jax.tree.map(np.array_equal, a, b))  # noqa: E731
    left_params, left = step(params, state, jnp.nan)
    assert int(left.notfinite_count) == 1
    assert same((params, state.inner_state), (left_params, left.inner_state))
    # The next step is as if it had not been.
    want, got = step(params, state, 0.0), step(left_params, left, 0.0)
    assert same((want[0], want[1].inner_state), (got[0], got[1].inner_state))
    assert int(method.find(got[1]).step) == 1


def test_hyperparameters_injected_around_a_method_reach_what_it_wraps():
    method = Frozen(recipe=recipe())
    around = optax.inject_hyperparams(lambda rate: method.wrap(optax.sgd(rate)))(rate=0.0)
    params, state = train(method, around, 1)
    assert all((kernels(params)[name] == k).all() for name, k in kernels(parameters()).items())
    state.hyperparams["rate"] = jnp.asarray(0.1, jnp.float32)
    moved, state = train(method, around, 1, params, state)
    assert (kernels(moved)["first"] != kernels(params)["first"]).all()
    assert int(method.find(state).step) == 2


def test_multi_steps_inside_a_method_moves_weights_every_kth_step_and_zeros_hold_at_all():
    method = OneShot(recipe=recipe(), at=0)
    inner = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=3).gradient_transformation()
    optimizer = method.wrap(inner)
    params, step = parameters(), stepper(method, optimizer)
    state, seen = optimizer.init(params), []
    for _ in range(6):
        params, state = step(params, state)
        seen.append(kernels(params)["first"])
        assert share_of_zeros(params) == {"first": 0.5, "second": 0.5}
    moved = [bool((a != b).any()) for a, b in itertools.pairwise(seen)]
    assert moved == [False, True, False, False, True]
    assert int(method.find(state).step) == 6


def test_sr_stes_term_is_clipped_inside_the_method_and_not_before_it():
    """By hand: of the gradient 3, 0, 4, 0 of norm 5, and terms of 0.5 and 0.25."""
    method = SRSTE(recipe=recipe(NM(2, 4)), decay=0.25)
    params = {"kernel": jnp.array([[4.0], [3.0], [2.0], [1.0]])}
    grads = {"kernel": jnp.array([[3.0], [0.0], [4.0], [0.0]])}
    clip, descent = optax.clip_by_global_norm(1.0), optax.sgd(1.0)

    def moved(optimizer):
        state = optimizer.init(params)
        weights = method.weights(params, state)
        updates, _ = optimizer.update(grads, state, params, weights=weights)
        return updates["kernel"][:, 0]

    before = moved(optax.chain(clip, method.wrap(descent)))
    np.testing.assert_allclose(before, [-0.6, 0, -0.8 - 0.5, -0.25], rtol=1e-6)
    inside = moved(method.wrap(optax.chain(clip, descent)))
    refined = np.array([3, 0, 4 + 0.5, 0.25])
    np.testing.assert_allclose(inside, -refined / np.linalg.norm(refined), rtol=1e-6)
