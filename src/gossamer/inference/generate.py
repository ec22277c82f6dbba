"""Continues a text token by token."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax

from gossamer.data import Tokenizer
from gossamer.inference.decoding import Decoding
from gossamer.inference.sampling import Sampling
from gossamer.loading import Checkpoint, load


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A continuation and how fast it came.

    Attributes:
        text: the new text, without an end token and without the stop string.
        tokens: the new tokens, an end token included.
        stopped_by: `end` (the model's end token), `stop` (a stop string), `max_tokens`, or
            `context` (the model has no more positions).
        prompt_tokens: tokens of the prompt.
        prefill_tokens_per_second: prompt tokens over the time to the first new token, compiling
            left out.
        decode_tokens_per_second: further tokens over their time; 0 where there was none.
    """

    text: str
    tokens: list[int]
    stopped_by: Literal["end", "stop", "max_tokens", "context"]
    prompt_tokens: int
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


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
    on_text: Callable[[str], None] = lambda _: None,
) -> Generation:
    """Continues a prompt, greedily unless `temperature` is set.

    Args:
        model: what `gossamer.load` returns, or what it takes; dense or packed.
        prompt: text, or token ids; an empty text starts from the model's begin token.
        max_tokens: new tokens at most, >= 1.
        temperature: see `Sampling`, also for `top_k` and `top_p`.
        top_k: keeps the k highest scores.
        top_p: keeps the likeliest tokens up to this probability.
        seed: the same seed gives the same text.
        stop: strings at which to stop; they may span tokens.
        chat: the prompt is a user's message to a chat model: the model's chat template wraps it.
        on_text: called with each new piece of text; the pieces make up the result's text.

    Raises:
        ValueError: a setting is out of range, the prompt is empty and the model has no begin
            token, it is longer than the model's context, or there is no tokenizer or chat template
            where one is needed.
    """
    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    if max_tokens < 1:
        raise ValueError(f"generate needs max_tokens >= 1, got {max_tokens}.")
    checkpoint = model if isinstance(model, Checkpoint) else load(model)
    ids = _prompt_ids(checkpoint, prompt, chat)
    limit = checkpoint.config.max_positions - len(ids)
    if limit < 0:
        raise ValueError(
            f"The prompt has {len(ids)} tokens, more than the {checkpoint.config.max_positions} "
            "positions of the model; shorten it."
        )
    decoding = Decoding(checkpoint, how, room=len(ids) + min(max_tokens, limit))
    decoding.warm_up(len(ids))
    tokens = decoding.tokens(ids, jax.random.key(seed))
    # The last position gives one more token, which need not be put through.
    most = min(max_tokens, limit + 1)
    return _collect(checkpoint.tokenizer, ids, tokens, most, max_tokens, stop, on_text)


def _prompt_ids(checkpoint: Checkpoint, prompt: str | Sequence[int], chat: bool) -> list[int]:
    tokenizer = checkpoint.tokenizer
    if not isinstance(prompt, str):
        ids = [int(token) for token in prompt]
        if bad := [token for token in ids if not 0 <= token < checkpoint.config.vocab_size]:
            raise ValueError(
                f"Tokens {bad[:5]} are outside the vocabulary of {checkpoint.config.vocab_size}."
            )
    elif tokenizer is None:
        raise ValueError(
            f"Model {checkpoint.source['name']!r} has no tokenizer; give the prompt as token ids."
        )
    elif chat:
        ids = tokenizer.encode(tokenizer.chat([{"role": "user", "content": prompt}]))
    else:
        ids = tokenizer.encode(prompt, add_special=True)
        if not ids and tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id]
    if not ids:
        raise ValueError("The prompt is empty and the model has no begin token; give some text.")
    return ids


def _collect(
    tokenizer: Tokenizer | None,
    prompt: list[int],
    tokens: Iterator[int],
    most: int,
    max_tokens: int,
    stop: Sequence[str],
    on_text: Callable[[str], None],
) -> Generation:
    """Takes tokens until something ends the text, and keeps time."""
    text = _Text(tokenizer, prompt, stop, on_text)
    ends = tokenizer.eos_ids if tokenizer else frozenset()
    start = time.perf_counter()
    first = start
    new: list[int] = []
    stopped_by: Literal["end", "stop", "max_tokens", "context"] = (
        "max_tokens" if most == max_tokens else "context"
    )
    for token in tokens:
        if not new:
            first = time.perf_counter()
        new.append(token)
        if token in ends:
            stopped_by = "end"
            break
        if text.add(token):
            stopped_by = "stop"
            break
        if len(new) == most:
            break
    last = time.perf_counter()
    text.finish()
    return Generation(
        text=text.shown,
        tokens=new,
        stopped_by=stopped_by,
        prompt_tokens=len(prompt),
        prefill_tokens_per_second=len(prompt) / (first - start),
        decode_tokens_per_second=(len(new) - 1) / (last - first) if len(new) > 1 else 0.0,
    )


class _Text:
    """The text of the new tokens, given out piece by piece once it cannot change any more."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        prompt: list[int],
        stop: Sequence[str],
        on_text: Callable[[str], None],
    ) -> None:
        if tokenizer is None and stop:
            raise ValueError("Stop strings need a tokenizer, and the model has none.")
        self._tokenizer, self._ids = tokenizer, list(prompt)
        self._before = len(self._decode())
        self._stop, self._on_text = [s for s in stop if s], on_text
        self.shown = ""

    def _decode(self) -> str:
        # With the prompt, since a token's text can depend on the one before it (leading spaces).
        return self._tokenizer.decode(self._ids) if self._tokenizer else ""

    def add(self, token: int) -> bool:
        """Adds a token; True where its text completes a stop string."""
        self._ids.append(token)
        new = self._decode()[self._before :]
        found = [at for s in self._stop if (at := new.find(s)) >= 0]
        if found:
            self._show(new[: min(found)])
            return True
        # The end may still change: half a character, or the start of a stop string.
        whole = new.rstrip("\N{REPLACEMENT CHARACTER}")
        held = max((_overlap(whole, s) for s in self._stop), default=0)
        self._show(whole[: len(whole) - held])
        return False

    def finish(self) -> None:
        """Shows what was held back, unless a stop string ended the text."""
        new = self._decode()[self._before :]
        if not any(s in new for s in self._stop):
            self._show(new)

    def _show(self, text: str) -> None:
        if len(text) > len(self.shown):
            self._on_text(text[len(self.shown) :])
            self.shown = text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)
