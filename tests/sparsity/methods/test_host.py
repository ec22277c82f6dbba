"""Masks that the host changes instead of the optimizer's step."""

import numpy as np
import optax
import pytest

from gossamer.sparsity import Periodic
from gossamer.sparsity.methods import GradualMagnitude, Saliency
from tests.sparsity.methods.problem import parameters, recipe


def on_host(method):
    return method(recipe=recipe(), schedule=Periodic(), drive="host")


def test_the_host_prunes_by_magnitude_without_gradients():
    method = on_host(GradualMagnitude)
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    state = optimizer.refresh(None, optimizer.init(params), params)
    kept = method.masks(params, state)["first.kernel"]
    np.testing.assert_array_equal(np.asarray(kept).reshape(8, 4, 16).sum(axis=1), 2)


def test_saliency_without_gradients_is_refused_not_guessed():
    method = on_host(Saliency)
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    with pytest.raises(ValueError, match=r"Saliency needs the gradient of first\.kernel"):
        optimizer.refresh(None, optimizer.init(params), params)
