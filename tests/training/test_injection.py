"""Quantized products as the `dot_general` of models that are not ours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from gossamer.packing import packed_product
from gossamer.quantization import Int, QuantAware, QuantizedGradients, Scheme
from gossamer.training import quantized_dot_general

SCHEME = Scheme(weights=Int(4), activations=Int(8))
PLAIN = (((2,), (0,)), ((), ()))
X = jax.random.normal(jax.random.key(0), (2, 5, 16))
KERNEL = jax.random.normal(jax.random.key(1), (16, 12))


@pytest.mark.parametrize("product", [None, packed_product], ids=["XLA", "native"])
def test_a_plain_product_is_that_of_the_weight(product):
    scheme = SCHEME if product is None else dataclasses.replace(SCHEME, product=product)
    got = quantized_dot_general(scheme)(X, KERNEL, PLAIN, precision=None)
    np.testing.assert_array_equal(got, QuantAware(KERNEL, SCHEME).dot(X))


def test_axes_may_be_summed_in_any_place_and_number():
    kernel = KERNEL.reshape(4, 4, 12).transpose(2, 0, 1)  # [out, a, b]
    x = X.reshape(2, 5, 4, 4).transpose(2, 0, 3, 1)  # [a, batch, b, time]
    sums = (((0, 2), (1, 2)), ((), ()))
    got = quantized_dot_general(SCHEME)(x, kernel, sums)
    assert got.shape == jax.lax.dot_general(x, kernel, sums).shape
    np.testing.assert_array_equal(got, QuantAware(KERNEL, SCHEME).dot(X))


def test_gradients_come_back_in_the_places_of_the_operands():
    kernel = KERNEL.T
    sums = (((2,), (1,)), ((), ()))

    def injected(kernel):
        return quantized_dot_general(SCHEME)(X, kernel, sums).sum()

    want = jax.grad(lambda kernel: QuantAware(kernel, SCHEME).dot(X).sum())(KERNEL)
    np.testing.assert_array_equal(jax.grad(injected)(kernel), want.T)


def test_the_result_has_the_type_that_is_asked_for():
    got = quantized_dot_general(SCHEME)(X, KERNEL, PLAIN, preferred_element_type=jnp.bfloat16)
    assert got.dtype == jnp.bfloat16


def test_layers_of_a_linen_model_take_it():
    layer = linen.DenseGeneral((3, 4), axis=-1, dot_general=quantized_dot_general(SCHEME))
    params = layer.init(jax.random.key(0), X)
    kernel = params["params"]["kernel"]
    want = QuantAware(kernel.reshape(16, 12), SCHEME).dot(X).reshape(2, 5, 3, 4)
    np.testing.assert_array_equal(layer.apply(params, X), want)


def test_each_layer_rounds_with_a_key_of_its_own():
    scheme = Scheme(weights=Int(4), activations=Int(8), backward=QuantizedGradients(format=Int(2)))

    def gradients(kernels):
        def loss(kernels):
            product = quantized_dot_general(scheme, jax.random.key(0))
            return sum(jnp.sum(product(X, kernel, PLAIN) ** 2) for kernel in kernels)

        return jax.grad(loss)(kernels)

    first, second = gradients([KERNEL, KERNEL])
    assert (first != second).any()
    np.testing.assert_array_equal(gradients([KERNEL, KERNEL])[0], first)


def test_batched_products_are_refused():
    with pytest.raises(ValueError, match=r"batched product of \(2, 5, 16\) and \(2, 16, 5\)"):
        quantized_dot_general(SCHEME)(X, X.transpose(0, 2, 1), (((2,), (1,)), ((0,), (0,))))


def test_a_sharded_result_is_refused():
    with pytest.raises(ValueError, match="takes no out_sharding, got 'model'"):
        quantized_dot_general(SCHEME)(X, KERNEL, PLAIN, out_sharding="model")
