"""Encoder-decoders at work: one text token by token, and many texts at once."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gossamer.inference.runner import Frame, Leaves, padded_length, take_apart
from gossamer.kernels.pages import use_huge_pages
from gossamer.loading import Checkpoint, load
from gossamer.models import T5, ModelConfig, T5Config, build
from gossamer.models.t5 import KeysAndValues
from gossamer.nn.attention import CacheType, KeyValueCache

MOST_TOKENS = 512
"""Of a text that is read or written; positions are relative, so that no table ends there."""

Decode: TypeAlias = Callable[[Int[Array, "B S"], Int[Array, "B S"]], Int[Array, "B T"]]
"""From tokens of sources and their segments, 0 for padding, to tokens of targets."""


class Progress(NamedTuple):
    """A text that is being written.

    Attributes:
        cache: of the tokens written.
        read: what the decoder looks at in the source.
        segments: of the source, 0 for padding.
    """

    cache: list[KeyValueCache]
    read: list[KeysAndValues]
    segments: Int[Array, "1 S"]


class EncoderDecoderRunner:
    """A model's weights in memory; what `Runner` is for models that continue a text.

    Args:
        checkpoint: the model; all its weights are read, compressed ones stay as they are.
        cache: how keys and values of the written tokens are kept.
    """

    def __init__(self, checkpoint: Checkpoint, cache: CacheType = "float32") -> None:
        self.config = encoder_decoder_config(checkpoint.config)
        self._cache: CacheType = cache
        self._model = take_apart(for_running(checkpoint))
        use_huge_pages(self._model[1])

    def prefill(self, prompt: Sequence[int], tokens: int) -> tuple[Float[Array, " V"], Progress]:
        """Reads a text, and gives the logits of the first token of another.

        Args:
            prompt: token ids, at least one.
            tokens: of both texts together, at most.
        """
        source = _padded([prompt], padded_length(len(prompt), MOST_TOKENS))
        room = padded_length(max(1, tokens - len(prompt)), MOST_TOKENS)
        read = _read(*self._model, *source)
        cache = _empty(*self._model, room, self._cache)
        start = jnp.int32(self.config.start_id)
        return self.step(start, Progress(cache, read, source[1]))

    def step(
        self, token: Int[Array, ""], progress: Progress
    ) -> tuple[Float[Array, " V"], Progress]:
        """Takes the token written last; the cache must have room for it."""
        logits, cache = _step(
            *self._model, token[None], progress.cache, progress.read, progress.segments
        )
        return logits[0], progress._replace(cache=cache)

    def compile(self, prompt_tokens: int, tokens: int) -> None:
        """Compiles what `prefill` and `step` need for these lengths, so that they can be timed."""
        logits, _ = self.prefill([self.config.end_id] * prompt_tokens, tokens)
        jax.block_until_ready(logits)


def encoder_decoder_config(config: ModelConfig) -> T5Config:
    """The config, if it is of an encoder-decoder.

    Raises:
        ValueError: it is of another kind of model.
    """
    if not isinstance(config, T5Config):
        raise ValueError(
            f"This is for encoder-decoders, which write a text for another, and a "
            f"{type(config).__name__} is of another kind of model."
        )
    return config


def for_running(checkpoint: Checkpoint) -> T5:
    """The model with one product for all projections that share an input."""
    model = build(encoder_decoder_config(checkpoint.config), checkpoint.read)
    assert isinstance(model, T5)
    for block in (*model.encoder.layers, *model.decoder.layers):
        block.fuse()
    return model


def translate(
    model: Checkpoint | str | Path,
    texts: Sequence[str],
    *,
    max_tokens: int = 128,
    batch: int = 64,
    advance: Callable[[], None] = lambda: None,
) -> list[str]:
    """Writes for each text what an encoder-decoder makes of it, by the likeliest token each time.

    Args:
        model: what `gossamer.load` returns or takes; dense or packed.
        texts: to read.
        max_tokens: of a text that is written, at most.
        batch: texts at once; those of like length are.
        advance: called after each of the `batches_of` batches, for a progress bar.

    Returns:
        The texts written, in the order of those read.

    Raises:
        ValueError: the model is no encoder-decoder or has no tokenizer; an argument is out of
            range; a text has more than `MOST_TOKENS` tokens.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load(model)
    encoder_decoder_config(checkpoint.config)
    model_for_running = functools.cache(lambda: take_apart(for_running(checkpoint)))

    def decode(source: Int[Array, "B S"], segments: Int[Array, "B S"]) -> Int[Array, "B T"]:
        return _decode(*model_for_running(), source, segments, max_tokens)

    return translate_with(
        decode, checkpoint, texts, max_tokens=max_tokens, batch=batch, advance=advance
    )


def translate_with(
    decode: Decode,
    checkpoint: Checkpoint,
    texts: Sequence[str],
    *,
    max_tokens: int,
    batch: int = 64,
    advance: Callable[[], None] = lambda: None,
) -> list[str]:
    """`translate` by another function from tokens to tokens, such as a model in training.

    Args:
        decode: as `greedy` does it.
        checkpoint: whose tokenizer and ids are taken.
        texts: to read.
        max_tokens: of a text that is written, which `decode` holds itself to.
        batch: texts at once.
        advance: called after each batch.
    """
    if max_tokens < 1 or batch < 1:
        raise ValueError(f"max_tokens and batch need 1 or more, got {max_tokens} and {batch}.")
    config, tokenizer = encoder_decoder_config(checkpoint.config), checkpoint.require_tokenizer()
    ids = source_tokens(checkpoint, texts)
    written: dict[int, str] = {}
    for chosen, length in batches_of([len(each) for each in ids], batch):
        rows = [ids[index] for index in chosen]
        rows += [[config.end_id]] * (batch - len(rows))  # one shape for the last batch too
        out = np.asarray(decode(*_padded(rows, length)))
        for index, tokens in zip(chosen, out, strict=False):
            ends = np.flatnonzero(tokens == config.end_id)
            written[index] = tokenizer.decode(tokens[: ends[0] if ends.size else None].tolist())
        advance()
    return [written[index].strip() for index in range(len(texts))]


def source_tokens(checkpoint: Checkpoint, texts: Sequence[str]) -> list[list[int]]:
    """The tokens that a model reads of each text, the one that ends it included.

    Raises:
        ValueError: the model is no encoder-decoder or has no tokenizer, or its tokenizer is of
            another; a text has more than `MOST_TOKENS` tokens.
    """
    config = encoder_decoder_config(checkpoint.config)
    ids = [[*each, config.end_id] for each in checkpoint.require_tokenizer().encode_all(texts)]
    if longest := [each for each in ids if len(each) > MOST_TOKENS]:
        raise ValueError(
            f"A text of {len(longest[0])} tokens is longer than {MOST_TOKENS}; cut it in sentences."
        )
    if (most := max(map(max, ids), default=0)) >= config.vocab_size:
        raise ValueError(
            f"Token {most} is outside the vocabulary of {config.vocab_size}: the tokenizer belongs "
            "to another model."
        )
    return ids


def batches_of(lengths: Sequence[int], batch: int) -> list[tuple[list[int], int]]:
    """Which texts go together, those of like length, and the length to which they are padded.

    Example:
        >>> batches_of([3, 40, 2], 2)
        [([2, 0], 16), ([1], 64)]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    return [(part, padded_length(lengths[part[-1]], MOST_TOKENS)) for part in parts]


def greedy(
    model: T5, source: Int[Array, "B S"], segments: Int[Array, "B S"], max_tokens: int
) -> Int[Array, "B max_tokens"]:
    """The likeliest token behind those before it, again and again.

    Args:
        model: with weights of any type.
        source: tokens to read.
        segments: 0 where `source` is padding, 1 elsewhere.
        max_tokens: of each row, at most.

    Returns:
        Tokens; `end_id` and what a row has behind it are `end_id`.
    """
    config, rows = model.config, len(source)
    read = model.read(source, segments)
    start = (
        jnp.int32(0),
        jnp.full((rows, max_tokens), config.end_id, jnp.int32),
        jnp.full((rows,), config.start_id, jnp.int32),
        model.empty_cache(rows, max_tokens),
        jnp.zeros((rows,), bool),
    )

    def unfinished(carry: tuple) -> Array:
        place, _, _, _, ended = carry
        return (place < max_tokens) & ~ended.all()

    def write(carry: tuple) -> tuple:
        place, out, token, cache, ended = carry
        logits, cache = model.step(token, cache, read, segments)
        token = jnp.where(ended, config.end_id, jnp.argmax(logits, axis=-1)).astype(jnp.int32)
        out = lax.dynamic_update_slice(out, token[:, None], (0, place))
        return place + 1, out, token, cache, ended | (token == config.end_id)

    return lax.while_loop(unfinished, write, start)[1]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _decode(
    frame: Frame,
    weights: Leaves,
    source: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    max_tokens: int,
) -> Int[Array, "B max_tokens"]:
    return greedy(frame.module(weights), source, segments, max_tokens)


@functools.partial(jax.jit, static_argnums=0)
def _read(
    frame: Frame, weights: Leaves, source: Int[Array, "B S"], segments: Int[Array, "B S"]
) -> list[KeysAndValues]:
    return frame.module(weights).read(source, segments)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _empty(frame: Frame, weights: Leaves, room: int, dtype: CacheType) -> list[KeyValueCache]:
    return frame.module(weights).empty_cache(1, room, dtype)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _step(
    frame: Frame,
    weights: Leaves,
    tokens: Int[Array, " B"],
    cache: list[KeyValueCache],
    read: list[KeysAndValues],
    segments: Int[Array, "B S"],
) -> tuple[Float[Array, "B V"], list[KeyValueCache]]:
    return frame.module(weights).step(tokens, cache, read, segments)


def _padded(
    rows: Sequence[Sequence[int]], length: int
) -> tuple[Int[Array, "B length"], Int[Array, "B length"]]:
    """Tokens in rows of one length, and 1 where they are, 0 where padding is."""
    tokens, segments = (np.zeros((len(rows), length), np.int32) for _ in range(2))
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        segments[index, : len(row)] = 1
    return jnp.asarray(tokens), jnp.asarray(segments)
