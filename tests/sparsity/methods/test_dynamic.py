"""What SET and RigL drop and grow, by hand, and what becomes of moments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import Periodic, Unstructured
from gossamer.sparsity.methods import SET, RigL
from tests.sparsity.methods.problem import recipe

SCHEDULE = Periodic(start=0, stop=100)
WEIGHTS = [0.8, 0.7, 0.6, 0.5, 0, 0, 0, 0]
GRADS = [0.1, 0.2, 0.3, 0.4, 0.8, -0.7, 0.6, 0.5]


def column(values):
    return {"kernel": jnp.asarray(values, jnp.float32)[:, None]}


def refreshed(method, weights, grads, keep, inner=None):
    """Masks and the whole state after the host has changed masks once, at step 0."""
    optimizer = method.wrap(optax.sgd(0.1) if inner is None else inner)
    params = column(weights)
    state = method.with_masks(
        optimizer.init(params), {"kernel": jnp.asarray(keep, jnp.bool_)[:, None]}
    )
    state = optimizer.refresh(column(grads), state, params)
    return np.asarray(method.masks(params, state)["kernel"][:, 0]), state


@pytest.mark.parametrize(
    ("fraction", "kept"),
    [
        (0.0, {0, 1, 2, 3}),
        (0.25, {0, 1, 2, 4}),
        (0.5, {0, 1, 4, 5}),
        (0.75, {0, 4, 5, 6}),
        (1.0, {4, 5, 6, 7}),
    ],
)
def test_rigl_drops_the_smallest_weights_and_grows_where_gradients_are_largest(fraction, kept):
    method = RigL(
        recipe=recipe(Unstructured(0.5)), schedule=SCHEDULE, drop_fraction=fraction, drive="host"
    )
    mask, _ = refreshed(method, WEIGHTS, GRADS, [1] * 4 + [0] * 4)
    assert set(np.flatnonzero(mask)) == kept


def test_what_was_dropped_may_grow_again_at_once():
    method = RigL(
        recipe=recipe(Unstructured(0.5)), schedule=SCHEDULE, drop_fraction=0.25, drive="host"
    )
    grads = [0.1, 0.2, 0.3, 9.0, 0.8, -0.7, 0.6, 0.5]
    mask, _ = refreshed(method, WEIGHTS, grads, [1] * 4 + [0] * 4)
    assert set(np.flatnonzero(mask)) == {0, 1, 2, 3}


SPARSITIES = [0.0, 0.5, 0.95]
SHAPES = [(1,), (3,), (8, 4), (5, 7), (2, 6, 4)]


@pytest.mark.parametrize("kind", [SET, RigL], ids=lambda kind: kind.__name__)
def test_the_number_of_weights_never_changes_but_their_places_do(kind):
    """Every shape at every sparsity, as weights of one tree: a single program is compiled."""
    rules = tuple(Rule(path=rf"{s}\(.*", pattern=Unstructured(s)) for s in SPARSITIES)
    shapes = {f"{sparsity}{shape}": shape for sparsity in SPARSITIES for shape in SHAPES}
    random = np.random.default_rng(0)
    draw = lambda: {k: np.float32(random.normal(size=s)) for k, s in shapes.items()}  # noqa: E731
    method = kind(recipe=Recipe(rules=rules), schedule=SCHEDULE, axis=-1, drive="host")
    optimizer = method.wrap(optax.sgd(0.1))
    refresh, moved = jax.jit(optimizer.refresh), dict.fromkeys(shapes, 0)
    params = jax.tree.map(jnp.asarray, draw())
    state = jax.jit(optimizer.init)(params)
    for _ in range(4):
        for path, mask in method.masks(params, state).items():
            sparsity = float(path.split("(")[0])
            kept = params[path].size - np.floor(sparsity * params[path].size)
            assert np.asarray(mask).sum() == kept, path
        state = refresh(draw(), state, params)
        moved = {path: moved[path] + int(state.sparse.flips[path]) for path in shapes}
    for path, shape in shapes.items():
        if path.startswith("0.0") or shape == (1,):
            assert moved[path] == 0, path
        elif path.startswith("0.5") and shape != (3,):
            assert moved[path] > 0, path


MOMENTS = {
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), ("trace",)),
    "adam": (lambda: optax.adam(0.1), ("mu", "nu")),
}


@pytest.mark.parametrize("optimizer", MOMENTS)
def test_moments_are_zero_exactly_where_weights_grew_and_untouched_elsewhere(optimizer):
    make, names = MOMENTS[optimizer]
    method = RigL(
        recipe=recipe(Unstructured(0.5)), schedule=SCHEDULE, drop_fraction=0.5, drive="host"
    )
    wrapped, params = method.wrap(make()), column(WEIGHTS)
    state = method.with_masks(
        wrapped.init(params), {"kernel": jnp.asarray([1] * 4 + [0] * 4, jnp.bool_)[:, None]}
    )
    ones = jax.tree.map(
        lambda leaf: jnp.ones_like(leaf) if leaf.shape == (8, 1) else leaf, state.inner
    )
    state = state._replace(inner=ones)
    after = wrapped.refresh(column(GRADS), state, params)
    mask = np.asarray(method.masks(params, after)["kernel"][:, 0])
    assert set(np.flatnonzero(mask)) == {0, 1, 4, 5}
    for name in names:
        moment = np.asarray(optax.tree_utils.tree_get(after.inner, name)["kernel"][:, 0])
        np.testing.assert_array_equal(moment, [1, 1, 1, 1, 0, 0, 1, 1])


def test_an_update_step_rests_the_optimizer_and_changes_no_weight():
    method = RigL(recipe=recipe(Unstructured(0.5)), schedule=Periodic(start=1, stop=9, every=4))
    optimizer = method.wrap(optax.adam(0.1))
    params = column(WEIGHTS)
    state = optimizer.init(params)
    counts = []
    for _ in range(3):
        weights = method.weights(params, state)
        updates, state = optimizer.update(column(GRADS), state, params, weights=weights)
        counts.append(int(optax.tree_utils.tree_get(state.inner, "count")))
        still = bool((optax.apply_updates(weights, updates)["kernel"] == weights["kernel"]).all())
        assert still == (len(counts) == 2)
        params = optax.apply_updates(params, updates)
    assert counts == [1, 1, 2]


def test_the_fraction_dropped_falls_along_a_cosine_to_nothing():
    method = SET(recipe=recipe(Unstructured(0.5)), schedule=SCHEDULE, drop_fraction=0.4)
    fractions = [float(method.dropped(jnp.int32(step))) for step in (0, 50, 100)]
    np.testing.assert_allclose(fractions, [0.4, 0.2, 0.0], atol=1e-7)


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_what_survives_stays_whatever_gradients_are(broken):
    method = RigL(
        recipe=recipe(Unstructured(0.5)), schedule=SCHEDULE, drop_fraction=0.25, drive="host"
    )
    # Kept are the last four, of which the third is the smallest: equal scores prefer the first.
    weights = [0, 0, 0, 0, 0.8, 0.7, 0.1, 0.5]
    mask, _ = refreshed(method, weights, [broken] * 8, [0] * 4 + [1] * 4)
    assert {4, 5, 7} < set(np.flatnonzero(mask))
    assert mask.sum() == 4
