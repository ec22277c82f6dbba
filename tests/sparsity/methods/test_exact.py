"""Hand-checkable values of every published rule, on one group of eight weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gossamer.sparsity import NM
from gossamer.sparsity.methods import ASP, SRSTE, STE, STEP, MaskDecay, MdGf, SdGf, StructureDecay
from tests.sparsity.methods.problem import one_weight, recipe

WEIGHT = [0.9, -0.1, 0.4, -1.2, 0.05, 0.3, -0.6, 0.2]
GRAD = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
ONE = recipe(NM(2, 8), path="kernel")


def at(method, step, weight=WEIGHT):
    """The method's state at a step, with the masks of these weights."""
    params = {"kernel": jnp.asarray(weight)[:, None]}
    state = dataclasses.replace(method.init(params), step=jnp.asarray(step - 1))
    updates = {"kernel": jnp.zeros((len(weight), 1))}
    state = dataclasses.replace(state, step=jnp.asarray(step))
    return method.after(updates, (), state, params)[2]


@pytest.mark.parametrize(
    ("n", "kept"), [(2, {0, 3}), (4, {0, 2, 3, 6}), (1, {3}), (7, {0, 1, 2, 3, 5, 6, 7})]
)
def test_masks_keep_the_largest_of_the_group(n, kept):
    method = STE(recipe=recipe(NM(n, 8), path="kernel"))
    seen, _ = one_weight(method, WEIGHT, GRAD)
    assert set(np.flatnonzero(seen)) == kept


@pytest.mark.parametrize("gradient", ["chain", "open"])
def test_mask_decay_flow_scales_what_is_pruned_and_by_the_chain_rule_its_gradient(gradient):
    # exp(-j ln 4) is a quarter at j = 1.
    method = MdGf(recipe=ONE, stop=100, rate=float(np.log(4)), gradient=gradient)
    seen, grad = one_weight(method, WEIGHT, GRAD, at(method, 1))
    np.testing.assert_allclose(seen, [0.9, -0.025, 0.1, -1.2, 0.0125, 0.075, -0.15, 0.05], 1e-6)
    chain = [0.1, 0.05, 0.075, 0.4, 0.125, 0.15, 0.175, 0.2]
    np.testing.assert_allclose(grad, chain if gradient == "chain" else GRAD, 1e-6)


def test_sr_ste_adds_the_decay_of_pruned_weights():
    _, grad = one_weight(SRSTE(recipe=ONE, decay=2e-4), WEIGHT, np.zeros(8))
    np.testing.assert_allclose(grad, [0, -2e-5, 8e-5, 0, 1e-5, 6e-5, -1.2e-4, 4e-5], 1e-6)


def test_ste_passes_gradients_through_unaltered():
    _, grad = one_weight(STE(recipe=ONE), WEIGHT, GRAD)
    np.testing.assert_array_equal(grad, np.float32(GRAD))


@pytest.mark.parametrize(
    ("decay", "step", "value"),
    [
        ("linear", 0, 1),
        ("linear", 250, 0.75),
        ("linear", 1000, 0),
        ("linear", 1500, 0),
        ("exponential", 1000, 0.367879),
        ("exponential", 5000, 0),  # the binary mask from `stop` on
    ],
)
def test_factor_of_the_gradient_flow(decay, step, value):
    method = MdGf(recipe=ONE, stop=5000, decay=decay, rate=1e-3)
    np.testing.assert_allclose(method.factor(jnp.asarray(step)), value, rtol=1e-5)


@pytest.mark.parametrize(("u", "value"), [(0, 1), (1, 0.9), (2, 0.8), (9, 0.1), (10, 0), (20, 0)])
def test_mask_decay_falls_in_stairs(u, value):
    method = MaskDecay(recipe=ONE, start=100, every=7, weight=0.1)
    for step in (100 + 7 * u, 100 + 7 * u + 6):
        np.testing.assert_allclose(method.factor(jnp.asarray(step)), value, rtol=1e-5, atol=1e-12)
    assert float(method.factor(jnp.asarray(99))) == 1


def test_mask_decay_without_weight_is_strict_from_the_start():
    method = MaskDecay(recipe=ONE, weight=0.0)
    _, grad = one_weight(method, WEIGHT, GRAD)
    np.testing.assert_allclose(grad, [0.1, 0, 0, 0.4, 0, 0, 0, 0], 1e-6)


@pytest.mark.parametrize(
    ("frames", "counts"), [("paper", [7, 4, 2, 1, 1]), ("aqt", [8, 7, 2, 1, 1])]
)
def test_structure_decay_tightens_frame_by_frame(frames, counts):
    target = recipe(NM(1, 8), path="kernel")
    method = StructureDecay(recipe=target, start=10, every=5, frames=frames)
    for frame, count in enumerate(counts):
        seen, _ = one_weight(method, WEIGHT, GRAD, at(method, 10 + 5 * frame))
        assert np.count_nonzero(seen) == count, frame


def test_structure_flow_has_equal_frames_and_ends_at_the_target():
    method = SdGf(recipe=recipe(NM(1, 8), path="kernel"), start=10, stop=40)
    counts = {}
    for step in (9, 10, 19, 20, 29, 30, 39, 40, 400):
        seen, _ = one_weight(method, WEIGHT, GRAD, at(method, step))
        counts[step] = np.count_nonzero(seen)
    assert counts == {9: 8, 10: 7, 19: 7, 20: 4, 29: 4, 30: 2, 39: 2, 40: 1, 400: 1}


def test_geometric_frames_keep_the_ratio_in_ever_smaller_groups():
    method = SdGf(recipe=recipe(NM(1, 2), path="kernel"), stop=2, frames="geometric", largest=4)
    weight = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    kept = []
    for step in (0, 1, 2):
        seen, _ = one_weight(method, weight, GRAD, at(method, step, weight))
        kept.append("".join("x" if value else "." for value in seen))
    assert kept == ["xxxx....", "xx..xx..", "x.x.x.x."]


def test_structure_flow_names_the_axis_that_a_frame_does_not_divide():
    method = SdGf(recipe=recipe(NM(1, 8), path="kernel"), stop=10, frames="geometric")
    with pytest.raises(ValueError, match=r"16:128 does not divide axis -2 of kernel, which has 8"):
        method.init({"kernel": jnp.ones((8, 1))})


def step_run(method, steps, grad=1e-2):
    """STEP on one weight of eight with a constant gradient; all states."""
    params = {"kernel": jnp.asarray(WEIGHT)[:, None], "other": jnp.ones((8, 1))}
    optimizer = method.wrap(optax.chain(method.scale_by_adam(), optax.scale(-1e-3)))
    state = optimizer.init(params)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, grad), params)

    @jax.jit
    def step(params, state):
        weights = method.weights(params, state)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    states = []
    for _ in range(steps):
        params, state = step(params, state)
        states.append(state)
    return states


def test_autoswitch_waits_until_the_second_moment_settles():
    method = STEP(recipe=ONE, earliest=0, latest=10_000)
    states = step_run(method, 2845)
    first = states[0].sparse.memory.changes[0]
    np.testing.assert_allclose(first, 1e-7, rtol=1e-4)
    switched = [int(state.sparse.memory.switched_at) for state in states]
    assert switched[2842] == -1
    assert switched[2843] == 2844
    assert bool(states[-1].sparse.memory.settled)


def test_autoswitch_stays_between_its_bounds():
    early = step_run(STEP(recipe=ONE, earliest=5, latest=50), 8, grad=1e-6)
    assert int(early[-1].sparse.memory.switched_at) == 6
    late = step_run(STEP(recipe=ONE, earliest=2, latest=5), 8, grad=1.0)
    assert int(late[-1].sparse.memory.switched_at) == 6
    assert not bool(late[-1].sparse.memory.settled)


def test_second_moments_of_masked_weights_freeze_bit_for_bit_and_others_go_on():
    states = step_run(STEP(recipe=ONE, earliest=0, latest=3), 9)
    at_switch = states[3].inner[0]
    for state in states[4:]:
        np.testing.assert_array_equal(state.inner[0].nu["kernel"], at_switch.nu["kernel"])
        assert (state.inner[0].nu["other"] > at_switch.nu["other"]).all()


def test_step_is_adam_before_the_switch():
    method = STEP(recipe=ONE, earliest=50, latest=50)
    params = {"kernel": jnp.asarray(WEIGHT)[:, None]}
    mine, adam = method.scale_by_adam(), optax.scale_by_adam()
    a, b = mine.init(params), adam.init(params)
    for seed in range(5):
        grads = {"kernel": jax.random.normal(jax.random.key(seed), (8, 1))}
        u, a = mine.update(grads, a)
        v, b = adam.update(grads, b)
        np.testing.assert_allclose(u["kernel"], v["kernel"], rtol=1e-6)


def test_frozen_step_corrects_the_bias_where_it_froze():
    method = STEP(recipe=ONE, earliest=0, latest=3)
    states = step_run(method, 6)
    frozen = states[-1].inner[0]
    # A constant gradient g: the mean without bias is g, the square g^2, whatever the step.
    np.testing.assert_allclose(frozen.frozen_at, 4)
    square = np.asarray(frozen.nu["kernel"]) / (1 - 0.999**4)
    np.testing.assert_allclose(square, 1e-4, rtol=1e-4)


def test_step_refuses_an_adam_that_cannot_freeze():
    method = STEP(recipe=ONE, earliest=0, latest=3)
    with pytest.raises(ValueError, match=r"use method\.scale_by_adam\(\)"):
        method.wrap(optax.adam(1e-3)).init({"kernel": jnp.ones((8, 1))})


def test_asp_shows_the_optimizer_no_gradient_of_what_it_pruned():
    _, grad = one_weight(ASP(recipe=ONE, at=0), WEIGHT, GRAD)
    np.testing.assert_allclose(grad, [0.1, 0, 0, 0.4, 0, 0, 0, 0], 1e-6)
