"""Steps whose masks the host changes: what they compute, and what they tell."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gossamer.sparsity import Cubic, Unstructured
from gossamer.sparsity.methods import (
    SET,
    SRSTE,
    STE,
    GlobalMagnitude,
    GradualMagnitude,
    RandomPruning,
    RigL,
    Saliency,
)
from tests.sparsity.methods.problem import batch, loss, parameters, recipe

CLIMB = Cubic(start=1, stop=5, every=2)
GIVEN = {"recipe": recipe(Unstructured(0.75)), "schedule": CLIMB}
BY_HOST = {
    kind.__name__: kind(**GIVEN, drive="host")
    for kind in (GradualMagnitude, GlobalMagnitude, Saliency, RandomPruning, SET, RigL)
}
AT_EVERY_STEP = {kind.__name__: kind(recipe=recipe()) for kind in (STE, SRSTE)}
BRANCHES = re.compile(r"\b(cond|while|scan|sort|top_k)\[")


def functions(method):
    """An ordinary step, and the host's."""
    optimizer = method.wrap(optax.adam(1e-2))

    def at_weights(params, state):
        weights = method.weights(params, state)
        return weights, jax.grad(loss)(weights, *batch())

    def step(params, state):
        weights, grads = at_weights(params, state)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    def refresh(params, state):
        return optimizer.refresh(at_weights(params, state)[1], state, params)

    return optimizer, step, refresh


def branches(method, members=None):
    """The loops, branches and sorts of a step, of one or of a population."""
    optimizer, step, _ = functions(method)
    parts = parameters(), jax.eval_shape(optimizer.init, parameters())
    if members is None:
        return BRANCHES.findall(str(jax.make_jaxpr(step)(*parts)))
    stack = lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype)  # noqa: E731
    together = jax.tree.map(stack, parts)
    return BRANCHES.findall(str(jax.make_jaxpr(jax.vmap(step))(*together)))


@pytest.mark.parametrize("method", (BY_HOST | AT_EVERY_STEP).values(), ids=BY_HOST | AT_EVERY_STEP)
def test_a_step_of_a_population_branches_loops_and_sorts_nowhere(method):
    assert branches(method, members=3) == []


@pytest.mark.parametrize("kind", [GradualMagnitude, RigL], ids=lambda kind: kind.__name__)
def test_a_step_that_changes_masks_itself_branches(kind):
    assert "cond" in branches(kind(**GIVEN))  # else the test above would see nothing


def test_flips_are_those_of_the_last_step_when_the_host_changes_masks():
    method = BY_HOST["GradualMagnitude"]
    optimizer, step, refresh = functions(method)
    step, refresh, params = jax.jit(step), jax.jit(refresh), parameters()
    state, flips = optimizer.init(params), []
    for number in range(7):
        if method.schedule.due(number):
            state = refresh(params, state)
        params, state = step(params, state)
        flips.append(int(method.find(state).flips["first.kernel"]) > 0)
    # Due at 1, where the climb begins at 0, at 3 and at 5.
    assert flips == [False, False, False, True, False, True, False]


@pytest.mark.slow
def test_a_population_that_drives_its_own_masks_gets_the_same_ones():
    """The dearer way: both sides of the branch run for every member."""
    method = GradualMagnitude(**GIVEN)
    optimizer, step, _ = functions(method)
    members = [parameters(), jax.tree.map(lambda leaf: 2 * leaf, parameters())]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    state, many = jax.vmap(optimizer.init)(together), jax.jit(jax.vmap(step))
    alone, one = [(member, optimizer.init(member)) for member in members], jax.jit(step)
    for _ in range(6):
        together, state = many(together, state)
        alone = [one(*each) for each in alone]
    for place, (_, its) in enumerate(alone):
        for path, mask in method.find(its).masks.items():
            mine = np.asarray(method.find(state).masks[path].stored[place])
            assert mine.mean() == 0.25
            np.testing.assert_array_equal(mine, mask.stored)
