"""Draws token after token from a model, and takes the time."""

import collections
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gossamer.inference.sampling import Sampling, sample


@runtime_checkable
class TokenByToken(Protocol):
    """A model that reads a prompt and then token after token: see `Runner`."""

    config: Any

    def prefill(self, prompt: Sequence[int], tokens: int) -> tuple[Float[Array, " V"], Any]:
        """Logits of the first new token, and what was seen."""
        ...

    def step(self, token: Int[Array, ""], seen: Any, /) -> tuple[Float[Array, " V"], Any]:
        """The same of the next one."""
        ...

    def compile(self, prompt_tokens: int, tokens: int) -> None:
        """Compiles both for these lengths."""
        ...


@dataclasses.dataclass
class Clock:
    """What reading and drawing took, compilation left out."""

    prefill_seconds: float = 0.0
    step_seconds: float = 0.0
    steps: int = 0


def draw(
    runner: TokenByToken,
    ids: Sequence[int],
    count: int,
    sampling: Sampling,
    key: PRNGKeyArray,
    clock: Clock,
) -> Iterator[int]:
    """Draws up to `count` tokens, one each time it is asked."""
    runner.compile(len(ids), len(ids) + count)
    _next_token(jnp.zeros(runner.config.vocab_size), key, 0, sampling)
    start = time.perf_counter()
    logits, cache = runner.prefill(ids, len(ids) + count)
    token = _next_token(logits, key, 0, sampling)
    drawn = _checked(token, 0)
    first = time.perf_counter()
    clock.prefill_seconds = first - start
    # The next step is on its way before a token is waited for: neither Python nor who takes the
    # tokens keeps the model waiting.
    ahead: collections.deque[Int[Array, ""]] = collections.deque()
    for index in range(1, count + 2):
        if index < count:
            logits, cache = runner.step(token, cache)
            token = _next_token(logits, key, index, sampling)
            ahead.append(token)
        if index == 1:
            yield drawn
        elif ahead:
            drawn = _checked(ahead.popleft(), index - 1)
            clock.steps = index - 1
            clock.step_seconds = time.perf_counter() - first
            yield drawn


@functools.partial(jax.jit, static_argnames="sampling")
def _next_token(
    logits: Float[Array, " V"], key: PRNGKeyArray, index: int | Int[Array, ""], sampling: Sampling
) -> Int[Array, ""]:
    """The token number `index` of the text, or -1 where the logits are not finite.

    A program of its own: another temperature compiles this again and not the model.
    """
    token = sample(logits, jax.random.fold_in(key, index), sampling)
    finite = jnp.isfinite(jnp.max(logits)) & jnp.isfinite(jnp.min(logits))
    return jnp.where(finite, token, -1)


def _checked(token: Int[Array, ""], index: int) -> int:
    if (value := int(token)) < 0:
        raise ValueError(
            f"The logits of generated token {index} hold NaN or Inf: weights or activations of the "
            "model are not finite, or overflow."
        )
    return value
