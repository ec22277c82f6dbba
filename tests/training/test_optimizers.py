import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gossamer.sparsity.methods import SRSTE
from gossamer.training import SGD, Adafactor, AdamW, Lion, chain
from tests.training.runs import RECIPE, UP

PARAMS = {
    UP: jnp.full((4, 2), 2.0),
    "embedding.kernel": jnp.full((2, 4), 2.0),
    "norm.scale": jnp.full(2, 2.0),
}


@pytest.mark.parametrize("kind", [AdamW, Adafactor, SGD, Lion], ids=lambda kind: kind.__name__)
def test_matrices_decay_and_nothing_else(kind):
    optimizer = chain(kind(learning_rate=0.5, decay="constant", weight_decay=0.1), None, 10)
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates[UP], -0.5 * 0.1 * 2, rtol=1e-6)
    assert not np.any(updates["embedding.kernel"])
    assert not np.any(updates["norm.scale"])


def test_clipping_is_of_the_gradient_alone_and_before_the_methods_term():
    method = SRSTE(recipe=RECIPE, decay=0.25)
    sgd = SGD(learning_rate=1.0, momentum=0.0, decay="constant", clip=1.0)
    params = {UP: jnp.array([[4.0], [3.0], [2.0], [1.0]])}
    optimizer = chain(sgd, method, 10)
    state = optimizer.init(params)
    weights = method.weights(params, state)
    grads = {UP: jnp.array([[3.0], [0.0], [4.0], [0.0]])}  # of norm 5
    updates, _ = optimizer.update(grads, state, params, weights=weights)
    np.testing.assert_allclose(updates[UP].ravel(), [-0.6, 0.0, -0.8 - 0.5, -0.25], rtol=1e-6)


def test_the_chain_of_adamw_is_optax_adamw():
    ours = chain(AdamW(learning_rate=0.1, decay="constant", clip=None, weight_decay=0.01), None, 9)
    theirs = optax.adamw(0.1, weight_decay=0.01)
    params, random = {UP: PARAMS[UP]}, np.random.default_rng(0)
    mine, its = ours.init(params), theirs.init(params)
    for _ in range(3):
        grads = {UP: jnp.asarray(random.standard_normal((4, 2)), jnp.float32)}
        left, mine = ours.update(grads, mine, params)
        right, its = theirs.update(grads, its, params)
        np.testing.assert_allclose(left[UP], right[UP], rtol=1e-5)


def test_the_learning_rate_climbs_and_falls():
    optimizer = AdamW(learning_rate=0.4, warmup=2, final=0.5)
    rates = [float(optimizer.rate(step, 6)) for step in (0, 1, 2, 4, 6)]
    np.testing.assert_allclose(rates, [0.0, 0.2, 0.4, 0.3, 0.2], rtol=1e-6)


def test_all_settings_that_make_no_sense_are_named():
    with pytest.raises(
        ValueError, match=r"AdamW needs learning_rate > 0, got 0.0; .*b2 in \[0, 1\)"
    ):
        AdamW(learning_rate=0.0, b2=1.0)
    with pytest.raises(ValueError, match=r"clip > 0 or none, got 0.0; momentum"):
        SGD(clip=0.0, momentum=1.0)
