"""What a model is trained to make small, for each kind of data."""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gossamer.data import PairRows
from gossamer.models import T5Inputs

_Numbers: TypeAlias = Any  # on their way from numpy to a device


class Losses(NamedTuple):
    """Cross entropies of a batch.

    Attributes:
        sums: over the predictions of each example, in nats.
        counts: predictions of each example.
        correct: how many of them were the likeliest.
    """

    sums: Float[Array, " batch"]
    counts: Float[Array, " batch"]
    correct: Float[Array, " batch"]


class LabelledImages(NamedTuple):
    """Images as the model takes them, and their classes."""

    images: Float[_Numbers, "*batch H W C"]
    labels: Int[_Numbers, "*batch"]


def next_token_losses(model: Any, tokens: Int[Array, "batch length"]) -> Losses:
    """Of every token but the first, from those before it."""
    everywhere = jnp.ones(tokens[:, 1:].shape, bool)
    return _losses(model(tokens[:, :-1]), tokens[:, 1:], everywhere)


def translation_losses(model: Any, rows: PairRows) -> Losses:
    """Of every token of a target, from its source and the tokens before it."""
    rows = PairRows(*map(jnp.asarray, rows))
    inputs = T5Inputs(rows.source, rows.target, rows.source_segments, rows.target_segments)
    return _losses(model(inputs), rows.labels, rows.target_segments != 0)


def label_losses(model: Any, batch: LabelledImages) -> Losses:
    """Of the class of every image."""
    logits, labels = model(jnp.asarray(batch.images)), jnp.asarray(batch.labels)
    return _losses(logits[:, None], labels[:, None], jnp.ones((len(labels), 1), bool))


def _losses(
    logits: Float[Array, "batch T V"],
    labels: Int[Array, "batch T"],
    counted: Bool[Array, "batch T"],
) -> Losses:
    logits = logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (jnp.argmax(logits, axis=-1) == labels) & counted
    return Losses(
        sums=jnp.where(counted, losses, 0.0).sum(axis=1),
        counts=counted.sum(axis=1).astype(jnp.float32),
        correct=correct.sum(axis=1).astype(jnp.float32),
    )
