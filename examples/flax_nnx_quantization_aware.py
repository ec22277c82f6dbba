"""Quantization-aware training of a Flax NNX model that knows nothing of gossamer.

    python examples/flax_nnx_quantization_aware.py

Only `dot_general=` is given to its layers. Forwards, int4 weights are multiplied by int8
activations, as integers; gradients go straight through.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from gossamer.packing import packed_product
from gossamer.quantization import Int, Scheme
from gossamer.training import quantized_dot_general

SCHEME = Scheme(weights=Int(4), activations=Int(8), product=packed_product)


class Classifier(nnx.Module):
    """Someone else's model."""

    def __init__(self, rngs: nnx.Rngs, dot_general=jax.lax.dot_general) -> None:
        self.hidden = nnx.Linear(16, 64, dot_general=dot_general, rngs=rngs)
        self.logits = nnx.Linear(64, 4, dot_general=dot_general, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.logits(nnx.relu(self.hidden(x)))


def train(steps: int, dot_general=None) -> list[float]:
    """Losses of every step: which of four random directions is nearest."""
    model = Classifier(nnx.Rngs(0), dot_general or quantized_dot_general(SCHEME))
    graph, params = nnx.split(model)
    optimizer = optax.adam(3e-3)
    directions = jax.random.normal(jax.random.key(1), (16, 4))

    def loss(params, x):
        logits = nnx.merge(graph, params)(x)
        labels = jnp.argmax(x @ directions, axis=-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, moments, key):
        value, gradients = jax.value_and_grad(loss)(params, jax.random.normal(key, (64, 16)))
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, value

    moments, losses = optimizer.init(params), []
    for number in range(steps):
        params, moments, value = step(params, moments, jax.random.key(number))
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    for name, product in (("float32", jax.lax.dot_general), ("int4 x int8", None)):
        losses = train(steps, product)
        print(f"{name}: loss {losses[0]:.3f} before, {losses[-1]:.3f} after {steps} steps")
