"""A small regression that every method trains, and the loop around it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM

TWO_OF_FOUR = NM(2, 4)


def recipe(pattern=TWO_OF_FOUR, path=r".*kernel"):
    return Recipe(rules=(Rule(path=path, pattern=pattern),))


def parameters():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "first": {"kernel": jax.random.normal(keys[0], (32, 16)) / 4, "bias": jnp.zeros(16)},
        "second": {"kernel": jax.random.normal(keys[1], (16, 8)) / 4, "bias": jnp.zeros(8)},
    }


def batch():
    keys = jax.random.split(jax.random.key(1), 2)
    return jax.random.normal(keys[0], (24, 32)), jax.random.normal(keys[1], (24, 8))


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
    return jnp.mean((hidden @ params["second"]["kernel"] + params["second"]["bias"] - y) ** 2)


def stepper(method, optimizer):
    """One step of training, compiled: weights, gradients at them, update."""

    @jax.jit
    def step(params, state):
        weights = method.weights(params, state)
        grads = jax.grad(loss)(weights, *batch())
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    return step


def train(method, optimizer, steps, params=None, state=None):
    params = parameters() if params is None else params
    state = optimizer.init(params) if state is None else state
    step = stepper(method, optimizer)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def kernels(params):
    return {name: np.asarray(params[name]["kernel"]) for name in ("first", "second")}


def one_weight(method, weight, grad, state=None):
    """Forward weights and the gradient that the optimizer sees, for a kernel of one output."""
    params = {"kernel": jnp.asarray(weight, jnp.float32)[:, None]}
    state = method.init(params) if state is None else state
    seen = method.weights(params, state)["kernel"][:, 0]
    grads = {"kernel": jnp.asarray(grad, jnp.float32)[:, None]}
    return np.asarray(seen), np.asarray(method.update(grads, state, params)[0]["kernel"][:, 0])
