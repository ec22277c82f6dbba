"""Prefill and decode: a prompt goes in, tokens come out one by one."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.inference.sampling import Sampling, sample
from gossamer.loading import Checkpoint
from gossamer.models import Cache, build_block, build_ends
from gossamer.nn.attention import KeyValueCache

_SHORTEST = 16


class Decoding:
    """A model ready to decode one sequence of up to `room` tokens.

    One compiled block serves all layers. Lengths are rounded up to powers of two, so that prompts
    of similar length share compiled programs; what stands behind the prompt is never looked at.

    Args:
        checkpoint: the model, dense or packed.
        how: how tokens are drawn.
        room: tokens of prompt and continuation that go through the model.
    """

    # Tried: all layers in one compiled step. The step itself is no faster on the reference path,
    # where decoding the weights takes the time, and compiling it takes about 30 times as long.

    def __init__(self, checkpoint: Checkpoint, how: Sampling, *, room: int) -> None:
        config = checkpoint.config
        self._how = how
        self._positions = config.max_positions
        self._room = self._rounded(room)
        self._ends = nnx.split(build_ends(config, checkpoint.read))
        blocks = (build_block(config, checkpoint.read, i) for i in range(config.num_layers))
        self._blocks = [nnx.split(block) for block in blocks]
        self._empty = functools.partial(
            KeyValueCache.empty,
            batch_size=1,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )

    def warm_up(self, prompt_tokens: int) -> None:
        """Compiles what a prompt of this length needs, by running it on zeros."""
        tokens = self.tokens([0] * prompt_tokens, jax.random.key(0))
        next(tokens)
        if prompt_tokens < self._positions:
            next(tokens)

    def tokens(self, prompt: list[int], key: jax.Array) -> Iterator[int]:
        """Yields the tokens that follow a prompt, for as long as there is room and one more."""
        caches, token = self._prefill(prompt, jax.random.fold_in(key, 0))
        yield int(token)
        for step in range(1, self._room - len(prompt) + 1):
            position = jnp.asarray(len(prompt) + step - 1)
            caches, token = self._run(
                token[None], position, caches, jnp.asarray(0), jax.random.fold_in(key, step)
            )
            yield int(token)

    def _prefill(self, prompt: list[int], key: jax.Array) -> tuple[Cache, Int[Array, ""]]:
        padded = np.zeros(self._rounded(len(prompt)), np.int32)
        padded[: len(prompt)] = prompt
        caches = [self._empty(max_tokens=len(padded)) for _ in self._blocks]
        last = jnp.asarray(len(prompt) - 1)
        caches, token = self._run(jnp.asarray(padded), jnp.asarray(0), caches, last, key)
        length = jnp.asarray(len(prompt), jnp.int32)
        room = max(self._room, len(padded))
        # What the padding left behind the prompt is overwritten before it is looked at. Each
        # length is its own buffer: a step donates the cache it is in.
        return [
            dataclasses.replace(cache.resized(room), length=length.copy()) for cache in caches
        ], token

    def _run(
        self,
        tokens: Int[Array, " T"],
        start: Int[Array, ""],
        caches: Cache,
        last: Int[Array, ""],
        key: jax.Array,
    ) -> tuple[Cache, Int[Array, ""]]:
        """Puts tokens through all blocks and draws the one that follows the token at `last`."""
        graph, state = self._ends
        hidden = _embed(graph, state, tokens, start)
        added: Cache = []
        for (block, weights), cache in zip(self._blocks, caches, strict=True):
            hidden, cache = _block(block, weights, hidden, start, cache)
            added.append(cache)
        return added, _next_token(graph, state, hidden, last, key, self._how)

    def _rounded(self, tokens: int) -> int:
        """The next power of two, within the model's positions."""
        return min(max(_SHORTEST, 1 << (tokens - 1).bit_length()), self._positions)


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    graph: nnx.GraphDef, state: nnx.State, tokens: Int[Array, " T"], start: Int[Array, ""]
) -> Float[Array, "1 T D"]:
    positions = start + jnp.arange(tokens.shape[0])
    return nnx.merge(graph, state).embed(tokens[None], positions)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _block(
    graph: nnx.GraphDef,
    state: nnx.State,
    hidden: Float[Array, "1 T D"],
    start: Int[Array, ""],
    cache: KeyValueCache,
) -> tuple[Float[Array, "1 T D"], KeyValueCache]:
    positions = start + jnp.arange(hidden.shape[1])
    return nnx.merge(graph, state)(hidden, positions, cache)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _next_token(
    graph: nnx.GraphDef,
    state: nnx.State,
    hidden: Float[Array, "1 T D"],
    last: Int[Array, ""],
    key: jax.Array,
    how: Sampling,
) -> Int[Array, ""]:
    states = jax.lax.dynamic_slice_in_dim(hidden, last, 1, axis=1)
    return sample(nnx.merge(graph, state).logits(states)[0, 0], key, how)
