"""Quantization-aware training of a Flax Linen model, gradients in integers too.

    python examples/flax_linen_quantization_aware.py

The model is made inside the loss, with a `dot_general` that holds the step's key: gradients are
rounded stochastically, by other noise at every step and layer.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import linen
from gossamer.packing import packed_product
from gossamer.quantization import Int, QuantizedGradients, Scheme
from gossamer.training import quantized_dot_general

SCHEME = Scheme(
    weights=Int(8), activations=Int(8), backward=QuantizedGradients(), product=packed_product
)


class Classifier(linen.Module):
    """Someone else's model."""

    dot_general: object = jax.lax.dot_general

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Dense(64, dot_general=self.dot_general)(x))
        return linen.Dense(4, dot_general=self.dot_general)(x)


def train(steps: int, quantized: bool = True) -> list[float]:
    """Losses of every step: which of four random directions is nearest."""
    optimizer = optax.adam(3e-3)
    directions = jax.random.normal(jax.random.key(1), (16, 4))

    def loss(params, x, key):
        product = quantized_dot_general(SCHEME, key) if quantized else jax.lax.dot_general
        logits = Classifier(product).apply(params, x)
        labels = jnp.argmax(x @ directions, axis=-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, moments, key):
        data, noise = jax.random.split(key)
        x = jax.random.normal(data, (64, 16))
        value, gradients = jax.value_and_grad(loss)(params, x, noise)
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, value

    params = Classifier().init(jax.random.key(0), jnp.zeros((1, 16)))
    moments, losses = optimizer.init(params), []
    for number in range(steps):
        params, moments, value = step(params, moments, jax.random.key(number))
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    for name, quantized in (("float32", False), ("int8, gradients too", True)):
        losses = train(steps, quantized)
        print(f"{name}: loss {losses[0]:.3f} before, {losses[-1]:.3f} after {steps} steps")
