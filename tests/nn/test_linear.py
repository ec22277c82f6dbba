import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.nn.linear import CompressedParam, Embedding, Linear, Positions, fuse
from gossamer.quantization import Int, Quantized


def quantized(kernel: jax.Array) -> Quantized:
    fmt = Int(8)
    return Quantized(fmt.encode(kernel), fmt)


def test_linear_multiplies_and_adds_its_bias():
    layer = Linear(2, 3, bias=True, rngs=nnx.Rngs(0))
    layer.kernel.set_value(jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    layer.bias.set_value(jnp.array([0.5, 0.0, -0.5]))
    np.testing.assert_array_equal(layer(jnp.array([[1.0, 1.0]])), [[11.5, 22.0, 32.5]])


def test_embedding_reads_the_columns_that_its_logits_score():
    layer = Embedding(5, 3, rngs=nnx.Rngs(0))
    vectors = layer(jnp.array([[4, 0]]))
    np.testing.assert_array_equal(vectors[0], layer.kernel.get_value().T[jnp.array([4, 0])])
    x = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(layer.logits(x)[jnp.array([4, 0])], vectors[0] @ x, rtol=1e-5)


@pytest.mark.parametrize(
    "layer", [Linear(8, 6, rngs=nnx.Rngs(0)), Embedding(6, 8, rngs=nnx.Rngs(0))]
)
def test_a_compressed_kernel_takes_the_place_of_an_array(layer):
    weight = quantized(layer.kernel.get_value())
    layer.kernel = CompressedParam(weight)
    product = layer if isinstance(layer, Linear) else layer.logits
    x = jax.random.normal(jax.random.key(1), (2, 8))
    np.testing.assert_allclose(product(x), x @ weight.materialize(), atol=1e-6)


def test_compressed_kernels_are_not_among_what_gradients_are_taken_of():
    layer = Linear(4, 2, bias=True, rngs=nnx.Rngs(0))
    layer.kernel = CompressedParam(quantized(layer.kernel.get_value()))
    gradients = nnx.grad(lambda layer: layer(jnp.ones(4)).sum())(layer)
    np.testing.assert_array_equal(gradients["bias"].get_value(), jnp.ones(2))
    assert [path for path, _ in nnx.to_flat_state(gradients)] == [("bias",)]


def test_a_position_outside_the_table_gives_nan():
    layer = Positions(3, 2, rngs=nnx.Rngs(0))
    rows = layer(jnp.array([2, 3]))
    np.testing.assert_array_equal(rows[0], layer.table.get_value()[2])
    assert np.isnan(rows[1]).all()


@pytest.mark.parametrize("bias", [False, True])
def test_fused_projections_give_what_each_gives(bias):
    layers = [Linear(8, size, bias=bias, rngs=nnx.Rngs(size)) for size in (6, 2, 4)]
    for layer in layers:
        if layer.bias is not None:
            layer.bias.set_value(jnp.arange(1.0, 1 + layer.bias.shape[0]))
    x = jax.random.normal(jax.random.key(1), (3, 8))
    fused = fuse(*layers)
    for got, layer in zip(fused(x), layers, strict=True):
        np.testing.assert_allclose(got, layer(x), rtol=1e-5, atol=1e-7)


def test_projections_that_are_not_stored_alike_are_not_fused():
    first, second = (Linear(8, 6, rngs=nnx.Rngs(seed)) for seed in range(2))
    second.kernel = CompressedParam(quantized(second.kernel.get_value()))
    assert fuse(first, second) is None
    assert fuse(Linear(8, 6, bias=True, rngs=nnx.Rngs(0)), Linear(8, 6, rngs=nnx.Rngs(1))) is None
