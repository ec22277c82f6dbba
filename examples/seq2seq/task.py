"""Numbers spelled out, 40216 as "forty thousand two hundred sixteen", and a Linen transformer.

The encoder sees digits, the decoder words; each word is a token. Held out are 500 of the million
numbers below 10^6: training never shows them.
"""

import functools
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Run", "Transformer", "batches", "exact_match", "loss", "options"]

KERNELS = r"params\.(encoder|decoder)_\d+\..*\.kernel"
SPELLED = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
thousand
"""
WORDS = ["<pad>", "<end>", *SPELLED.split()]
ONES, TENS = WORDS[2:22], WORDS[22:30]
PAD, END = 0, 1
DIGITS, LENGTH = 6, 12  # the longest: 777777 has 11 words, and an end
HELD_OUT, BATCH = 500, 64


def spell(number: int) -> list[str]:
    """The words of a number below 10^6.

    Example:
        >>> spell(40216)
        ['forty', 'thousand', 'two', 'hundred', 'sixteen']
    """
    if number >= 1000:
        rest = number % 1000
        return [*spell(number // 1000), "thousand", *(spell(rest) if rest else [])]
    if number >= 100:
        rest = number % 100
        return [ONES[number // 100], "hundred", *(spell(rest) if rest else [])]
    if number >= 20:
        rest = number % 10
        return [TENS[number // 10 - 2], *(spell(rest) if rest else [])]
    return [ONES[number]]


def encode(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """`inputs`, the digits plus 1 on the right of zeros, and `targets`, words, an end and zeros."""
    inputs = np.zeros((len(numbers), DIGITS), np.int32)
    targets = np.full((len(numbers), LENGTH), PAD, np.int32)
    for row, number in enumerate(numbers):
        digits = [int(digit) + 1 for digit in str(number)]
        words = [WORDS.index(word) for word in spell(int(number))]
        inputs[row, DIGITS - len(digits) :] = digits
        targets[row, : len(words) + 1] = [*words, END]
    return {"inputs": inputs, "targets": targets}


@functools.cache
def held_out() -> np.ndarray:
    return np.random.default_rng(0).choice(10**6, HELD_OUT, replace=False)


def batches(steps: int):
    """Random numbers, as many of each length, none that is held out."""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        numbers = rng.integers(0, 10 ** rng.integers(1, DIGITS + 1, 2 * BATCH))
        yield encode(numbers[~np.isin(numbers, held_out())][:BATCH])


class Mlp(nn.Module):
    """Feed-forward layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(x.shape[-1])(nn.relu(nn.Dense(2 * x.shape[-1])(x)))


class Layer(nn.Module):
    """Self-attention, attention to the encoder where there is one, feed-forward layers."""

    @nn.compact
    def __call__(self, x: jax.Array, memory: jax.Array | None = None) -> jax.Array:
        mask = None if memory is None else nn.make_causal_mask(x[..., 0])
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
        if memory is not None:
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), memory)
        return x + Mlp()(nn.LayerNorm()(x))


class Transformer(nn.Module):
    """Logits of every next word, given those before it."""

    width: int = 64
    layers: int = 2

    @nn.compact
    def __call__(self, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        embed = functools.partial(nn.Embed, features=self.width)
        x = embed(11, name="digits")(inputs) + embed(DIGITS, name="places")(jnp.arange(DIGITS))
        for i in range(self.layers):
            x = Layer(name=f"encoder_{i}")(x)
        memory = nn.LayerNorm()(x)
        before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
        y = embed(len(WORDS), name="words")(before)
        y = y + embed(LENGTH, name="positions")(jnp.arange(LENGTH))
        for i in range(self.layers):
            y = Layer(name=f"decoder_{i}")(y, memory)
        return nn.Dense(len(WORDS), name="logits")(nn.LayerNorm()(y))


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean over all words and ends."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    counted = targets != PAD
    return jnp.sum(each * counted) / jnp.sum(counted)


def exact_match(model: Transformer, params: Any) -> float:
    """The fraction of held-out numbers whose words, decoded greedily, are all right."""
    batch = encode(held_out())

    @jax.jit
    def decode(params: Any, inputs: jax.Array) -> jax.Array:
        def word(i: int, targets: jax.Array) -> jax.Array:
            best = jnp.argmax(model.apply(params, inputs, targets)[:, i], axis=-1)
            ended = jnp.any(targets == END, axis=-1)
            return targets.at[:, i].set(jnp.where(ended, PAD, best))

        return jax.lax.fori_loop(0, LENGTH, word, jnp.zeros((len(inputs), LENGTH), jnp.int32))

    right = decode(params, batch["inputs"]) == batch["targets"]
    return float(jnp.mean(jnp.all(right, axis=-1)))
