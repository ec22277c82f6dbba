"""Models of other libraries, trained for a few steps with what they call parameters."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from gossamer.parameters import leaves_by_path
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Periodic
from gossamer.sparsity.methods import SRSTE, RigL
from tests.sparsity.methods.problem import batch


def of_linen():
    model = linen.Sequential([linen.Dense(16), jnp.tanh, linen.Dense(8)])
    return model.init(jax.random.key(0), batch()[0]), model.apply


def of_nnx():
    model = nnx.Sequential(
        nnx.Linear(32, 16, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(16, 8, rngs=nnx.Rngs(1))
    )
    graph, params = nnx.split(model)
    return params, lambda params, x: nnx.merge(graph, params)(x)


def of_equinox():
    model = equinox.nn.MLP(32, 8, width_size=16, depth=1, key=jax.random.key(0))
    params, rest = equinox.partition(model, equinox.is_inexact_array)
    return params, lambda params, x: jax.vmap(equinox.combine(params, rest))(x)


def of_haiku():
    haiku = pytest.importorskip("haiku")
    model = haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP([16, 8])(x)))
    return model.init(jax.random.key(0), batch()[0]), model.apply


MODELS = {  # parameters and their function; which they are, and the axis that products sum over
    "linen": (of_linen, r"params\..*\.kernel", -2),
    "nnx": (of_nnx, r"layers\..*\.kernel", -2),
    "equinox": (of_equinox, r"layers\..*\.weight", -1),  # [out, in]
    "haiku": (of_haiku, r"mlp/~/linear_\d\.w", -2),
}
KINDS = {
    "SRSTE": lambda **given: SRSTE(**given),
    "RigL": lambda **given: RigL(schedule=Periodic(start=1, every=4, stop=9), **given),
}


@pytest.mark.parametrize("kind", ["SRSTE", pytest.param("RigL", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.peer] * (each == "haiku")) for each in MODELS]
)
def test_a_model_of_another_library_learns_with_two_of_four_weights(name, kind):
    make, path, axis = MODELS[name]
    rules = Recipe(rules=(Rule(path=path, pattern=NM(2, 4)),))
    method = KINDS[kind](recipe=rules, axis=axis, packed=True)
    optimizer, (params, apply) = method.wrap(optax.adam(1e-2)), make()
    x, y = batch()

    @jax.jit
    def step(params, state):
        weights = method.weights(params, state)
        value, grads = jax.value_and_grad(lambda w: jnp.mean((apply(w, x) - y) ** 2))(weights)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(16):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]
    seen = leaves_by_path(method.weights(params, state))
    masks = method.masks(params, state)
    assert len(masks) == 2
    for path, mask in masks.items():
        groups = np.moveaxis(np.asarray(mask), axis, -1).reshape(-1, 4)
        np.testing.assert_array_equal(groups.sum(axis=1), 2)
        assert not np.any(np.where(mask, 0, seen[path]))
