"""A model ready to read a prompt and to give token after token, with what it has seen in a cache.

Every block has its own weights and all run through one compiled function.

Tried: the whole step as one program. SmolLM2 (30 blocks) on two cores compiles 3.0 s instead of
0.7 s dense and 8.5 s instead of 1.7 s as 2:4 int4, and a step takes 37 ms instead of 44 ms and
178 ms instead of 140 ms. A text has to be long before that pays; packed kernels that read 50 MB in
3 ms will decide anew, since calling 32 programs takes about 4 ms of a step.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.loading import Checkpoint
from gossamer.models import Cache, build_block, build_ends
from gossamer.nn.attention import KeyValueCache

_LEAST_ROOM = 16

Part: TypeAlias = tuple[nnx.GraphDef[Any], nnx.State[Any, Any]]
"""A split module: what is compiled for, and the weights."""


def room_for(tokens: int, limit: int) -> int:
    """The power of two in which `tokens` fit, so that few lengths are compiled; at most `limit`.

    Example:
        >>> room_for(3, limit=2048), room_for(65, limit=2048), room_for(65, limit=100)
        (16, 128, 100)
    """
    return min(limit, max(_LEAST_ROOM, 1 << (tokens - 1).bit_length()))


class Runner:
    """A model's weights in memory, of whatever types the checkpoint has.

    Args:
        checkpoint: the model; all its weights are read, compressed ones stay as they are.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        self.config = config
        ends = build_ends(config, checkpoint.read)
        self._ends: Part = nnx.split(ends)
        self._blocks: list[Part] = [
            nnx.split(build_block(config, checkpoint.read, index))
            for index in range(config.num_layers)
        ]

    def prefill(self, prompt: Sequence[int], room: int) -> tuple[Float[Array, " V"], Cache]:
        """Reads a prompt.

        It is padded to a length that other prompts share, which changes nothing: padding comes
        last, so that no token of the prompt sees it, and it is struck from the cache.

        Args:
            prompt: token ids, one at least and `room` at most.
            room: tokens that the cache shall hold, at most the model's positions.

        Returns:
            The logits of the next token, and the cache.
        """
        length = room_for(len(prompt), self.config.max_positions)
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(prompt)] = prompt
        hidden = _embed(*self._ends, jnp.asarray(tokens), 0)
        cache: Cache = []
        for graph, state in self._blocks:
            hidden, layer = _block(graph, state, hidden, self._empty(length))
            cache.append(_trim(layer, len(prompt), max(room, length)))
        return _logits(*self._ends, hidden, len(prompt) - 1), cache

    def step(self, token: Int[Array, ""], cache: Cache) -> tuple[Float[Array, " V"], Cache]:
        """Reads one token more; `cache` is used up, the one that comes back takes its place.

        There must be room for the token; the caller counts.
        """
        hidden = _embed(*self._ends, token[None, None], cache[0].length if cache else 0)
        added: Cache = []
        for (graph, state), layer in zip(self._blocks, cache, strict=True):
            hidden, layer = _block(graph, state, hidden, layer)
            added.append(layer)
        return _logits(*self._ends, hidden, 0), added

    def compile(self, prompt_tokens: int, room: int) -> None:
        """Compiles what a prompt and steps of these lengths need, so that they can be timed.

        Runs the ends, and one block of each kind, on zeros.
        """
        length = room_for(prompt_tokens, self.config.max_positions)
        kinds = {_kind(block): block for block in self._blocks}
        for tokens, size in ((length, length), (1, max(room, length))):
            zeros = jnp.zeros((1, tokens), jnp.int32)
            hidden = _embed(*self._ends, zeros, 0)
            for graph, state in kinds.values():
                _, layer = _block(graph, state, hidden, self._empty(size))
                _trim(layer, prompt_tokens, max(room, length))
            jax.block_until_ready(_logits(*self._ends, hidden, 0))

    def _empty(self, tokens: int) -> KeyValueCache:
        return KeyValueCache.empty(
            batch_size=1,
            num_kv_heads=self.config.num_kv_heads,
            max_tokens=tokens,
            head_dim=self.config.head_dim,
        )
