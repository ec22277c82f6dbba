"""Continues a text with a model."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax

from gossamer.inference.draw import Clock, draw
from gossamer.inference.encoder_decoder import MOST_TOKENS, EncoderDecoderRunner
from gossamer.inference.runner import Runner
from gossamer.inference.sampling import Sampling
from gossamer.inference.text_stream import TextStream
from gossamer.loading import Checkpoint, load
from gossamer.models import T5Config, decoder_config
from gossamer.nn.attention import CacheType

StoppedBy = Literal["end", "stop", "length", "context"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A continuation and how fast it came.

    Attributes:
        text: what follows the prompt, without special tokens and without the stop string; empty
            where the model has no tokenizer.
        tokens: the ids generated, an end token included.
        prompt_tokens: tokens of the prompt.
        prefill_tokens_per_second: tokens of the prompt over the seconds until the first new token.
        decode_tokens_per_second: tokens after the first over the seconds from the first to the
            last; None where there is only one. Reading the weights and compiling count in neither.
        stopped_by: `end` an end token, `stop` a stop string, `length` as many tokens as asked for,
            `context` the model's positions are used up.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None
    stopped_by: StoppedBy


def generate(
    model: Checkpoint | str | Path,
    prompt: str | Sequence[int],
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    chat: bool = False,
    cache: CacheType = "float32",
    on_text: Callable[[str], object] | None = None,
) -> Generation:
    """Continues a prompt; an encoder-decoder reads it, and what it writes begins anew.

    Args:
        model: what `gossamer.load` returns or takes; dense or packed.
        prompt: a text, or token ids to take as they are. An empty text starts from nothing, which
            needs a model with a BOS token.
        max_tokens: tokens at most.
        temperature: 0 takes the most likely token each time; higher is more random.
        top_k: choose among this many most likely tokens; None is all.
        top_p: choose among the fewest tokens whose probabilities reach this sum; None is all.
        seed: the same seed gives the same text.
        stop: strings that end the text.
        chat: the prompt is what a user says; it is put in the model's chat template.
        cache: how keys and values of past tokens are kept; int8 takes a quarter of the memory.
        on_text: called with each piece of text as it comes; the pieces joined are the text.

    Raises:
        ValueError: an argument is out of range, the prompt leaves no position for a token, the
            model is no language model, or lacks a tokenizer, a BOS token or a chat template that
            is needed, or its logits are not finite.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    if max_tokens < 1:
        raise ValueError(f"max_tokens needs a whole number >= 1, got {max_tokens}.")
    checkpoint = model if isinstance(model, Checkpoint) else load(model)
    config = checkpoint.config
    if not isinstance(config, T5Config):
        config = decoder_config(config)
    tokenizer = checkpoint.require_tokenizer() if stop else checkpoint.tokenizer
    ids = _prompt_ids(checkpoint, prompt, config.vocab_size, chat=chat)
    if isinstance(config, T5Config):
        limit = min(max_tokens, MOST_TOKENS)
    else:
        limit = min(max_tokens, _free_positions(config.max_positions, ids))
    stream = TextStream(tokenizer, ids, stop) if tokenizer else None
    ends = tokenizer.eos_ids if tokenizer else frozenset()
    clock = Clock()
    runner = make_runner(checkpoint, cache)
    draws = draw(runner, ids, limit, sampling, jax.random.key(seed), clock)
    text, tokens, stopped_by = _read_out(draws, stream, ends, on_text)
    if stopped_by == "length" and limit < max_tokens:
        stopped_by = "context"
    return Generation(
        text=text,
        tokens=tokens,
        prompt_tokens=len(ids),
        prefill_tokens_per_second=len(ids) / clock.prefill_seconds,
        decode_tokens_per_second=clock.steps / clock.step_seconds if clock.steps else None,
        stopped_by=stopped_by,
    )


def make_runner(checkpoint: Checkpoint, cache: CacheType) -> Runner | EncoderDecoderRunner:
    """A model's weights in memory, ready to read a prompt."""
    if isinstance(checkpoint.config, T5Config):
        return EncoderDecoderRunner(checkpoint, cache)
    return Runner(checkpoint, cache)


def _prompt_ids(
    checkpoint: Checkpoint, prompt: str | Sequence[int], vocabulary: int, *, chat: bool
) -> list[int]:
    """The prompt as tokens of the model's vocabulary."""
    if isinstance(prompt, str):
        tokenizer = checkpoint.require_tokenizer()
        if chat:
            ids = tokenizer.encode(tokenizer.chat([{"role": "user", "content": prompt}]))
        else:
            ids = tokenizer.encode(prompt, add_special=True)
        config = checkpoint.config
        if isinstance(config, T5Config) and ids[-1:] != [config.end_id]:
            ids = [*ids, config.end_id]  # its sources end so, whatever the tokenizer adds
        if not ids and tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id]
    elif chat:
        raise ValueError("chat=True puts a text in a template; got token ids: give the text.")
    else:
        ids = [int(index) for index in prompt]
    if not ids:
        raise ValueError(
            "The prompt is empty, and the model has no BOS token to start from; give a prompt."
        )
    if outside := [index for index in ids if not 0 <= index < vocabulary]:
        raise ValueError(
            f"The prompt holds token {outside[0]}, outside the model's vocabulary of {vocabulary}."
        )
    return ids


def _free_positions(limit: int, ids: Sequence[int]) -> int:
    if len(ids) >= limit:
        raise ValueError(
            f"The prompt has {len(ids)} tokens and the model {limit} positions, which leaves none "
            "for an answer; shorten the prompt."
        )
    return limit - len(ids)


def _read_out(
    draws: Iterator[int],
    stream: TextStream | None,
    ends: frozenset[int],
    on_text: Callable[[str], object] | None,
) -> tuple[str, list[int], StoppedBy]:
    """Takes tokens until something ends the text."""
    pieces: list[str] = []
    tokens: list[int] = []

    def give(piece: str) -> None:
        pieces.append(piece)
        if piece and on_text is not None:
            on_text(piece)

    stopped_by: StoppedBy = "length"
    for token in draws:
        tokens.append(token)
        if token in ends:
            stopped_by = "end"
            break
        if stream is not None:
            give(stream.push(token))
            if stream.stopped:
                stopped_by = "stop"
                break
    if stream is not None:
        give(stream.finish())
    return "".join(pieces), tokens, stopped_by
