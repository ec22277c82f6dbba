import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.nn.norms import LayerNorm, RMSNorm


def test_rms_norm_golden():
    layer = RMSNorm(2, epsilon=0.5)
    layer.scale.set_value(jnp.array([1.0, 10.0]))
    # x = (3, 4): mean square 12.5, and the root of 12.5 + 0.5
    np.testing.assert_allclose(layer(jnp.array([3.0, 4.0])), np.array([3.0, 40.0]) / np.sqrt(13))


def test_layer_norm_golden():
    layer = LayerNorm(2, epsilon=1.25)
    layer.scale.set_value(jnp.array([1.0, 10.0]))
    layer.bias.set_value(jnp.array([0.0, 5.0]))
    # x = (3, 5): mean 4, variance 1, root of 2.25 is 1.5
    want = [-1 / 1.5, 10 / 1.5 + 5]
    np.testing.assert_allclose(layer(jnp.array([3.0, 5.0])), want, rtol=1e-6)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_the_size_of_the_input_does_not_matter(kind):
    layer = kind(16, epsilon=1e-12)
    x = jax.random.normal(jax.random.key(0), (3, 16))
    np.testing.assert_allclose(layer(1000 * x), layer(x), rtol=1e-5, atol=1e-6)
