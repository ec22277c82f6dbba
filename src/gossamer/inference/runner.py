"""A model ready to read a prompt and to give token after token, with what it has seen in a cache.

A prompt goes through a block at a time: every block has its own weights and all run through one
compiled function. A step is one program of all blocks, since calling thirty takes longer than what
they do; products that share an input are one, and the cache is updated in place.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.kernels.attention import CachePlanes
from gossamer.loading import Checkpoint
from gossamer.models import Block, Cache, build_block, build_ends
from gossamer.nn.attention import CacheType, KeyValueCache

_LEAST_LENGTH = 16

_Leaves: TypeAlias = list[jax.Array]


def padded_length(tokens: int, limit: int) -> int:
    """The power of two in which `tokens` fit, so that few lengths are compiled; at most `limit`.

    Example:
        >>> padded_length(3, 2048), padded_length(65, 2048), padded_length(65, 100)
        (16, 128, 100)
    """
    return min(limit, max(_LEAST_LENGTH, 1 << (tokens - 1).bit_length()))


class Runner:
    """A model's weights in memory, of whatever types the checkpoint has.

    Args:
        checkpoint: the model; all its weights are read, compressed ones stay as they are.
        cache: how keys and values are kept.
    """

    def __init__(self, checkpoint: Checkpoint, cache: CacheType = "float32") -> None:
        config = checkpoint.config
        self.config = config
        self._cache = cache
        self._ends = _take_apart(build_ends(config, checkpoint.read))
        self._blocks = [
            _take_apart(_fused(build_block(config, checkpoint.read, index)))
            for index in range(config.num_layers)
        ]
        self._frames = _frames(self._ends[0], tuple(frame for frame, _ in self._blocks))
        self._weights = [self._ends[1], *(weights for _, weights in self._blocks)]

    def prefill(self, prompt: Sequence[int], tokens: int) -> tuple[Float[Array, " V"], Cache]:
        """Reads a prompt.

        It is padded to a length that other prompts share, which changes nothing: padding comes
        last, so that no token of the prompt sees it, and it is struck from the cache.

        Args:
            prompt: token ids, at least one.
            tokens: how many the cache must be able to hold, the prompt included; at most the
                model's positions.

        Returns:
            The logits of the next token, and the cache.
        """
        length, room = self._lengths(len(prompt), tokens)
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(prompt)] = prompt
        hidden = _embed(*self._ends, jnp.asarray(padded), jnp.int32(0))
        cache: Cache = []
        for frame, weights in self._blocks:
            hidden, layer = _run_block(frame, weights, hidden, self._empty(length))
            cache.append(_trim(layer, jnp.int32(len(prompt)), room))
        return _next_logits(*self._ends, hidden, jnp.int32(len(prompt) - 1)), cache

    def step(self, token: Int[Array, ""], cache: Cache) -> tuple[Float[Array, " V"], Cache]:
        """Reads one token more; `cache` is used up, the one that comes back takes its place.

        The cache must have room for it: the caller counts.
        """
        # Every layer has seen the same tokens; a model without layers has no use for positions.
        length = cache[0].length if cache else jnp.int32(0)
        planes = [layer.planes for layer in cache]
        logits, planes, length = _step(self._frames, self._weights, token, planes, length)
        return logits, [KeyValueCache.of(layer, length) for layer in planes]

    def compile(self, prompt_tokens: int, tokens: int) -> None:
        """Compiles what `prefill` and `step` need for these lengths, so that they can be timed.

        Puts zeros through one block of each kind, and through a step.
        """
        length, room = self._lengths(prompt_tokens, tokens)
        kinds = {_kind(*block): block for block in self._blocks}
        hidden = _embed(*self._ends, jnp.zeros((1, length), jnp.int32), jnp.int32(0))
        for frame, weights in kinds.values():
            hidden, _ = _run_block(frame, weights, hidden, self._empty(length))
        _next_logits(*self._ends, hidden, jnp.int32(0))
        _trim(self._empty(length), jnp.int32(0), room)
        logits, _ = self.step(jnp.int32(0), [self._empty(room) for _ in self._blocks])
        jax.block_until_ready(logits)

    def _lengths(self, prompt_tokens: int, tokens: int) -> tuple[int, int]:
        limit = self.config.max_positions
        return padded_length(prompt_tokens, limit), padded_length(tokens, limit)

    def _empty(self, tokens: int) -> KeyValueCache:
        return KeyValueCache.empty(
            batch_size=1,
            num_kv_heads=self.config.num_kv_heads,
            max_tokens=tokens,
            head_dim=self.config.head_dim,
            dtype=self._cache,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """A module without its weights.

    Equal frames are one object and compared as such: comparing graph definitions on every call
    takes 0.3 ms, as long as a small block.
    """

    graph: nnx.GraphDef[Any]
    structure: Any  # of the weights: a jax.tree_util.PyTreeDef, which is no type to pyright

    def module(self, weights: _Leaves) -> Any:
        """The module with these weights."""
        return nnx.merge(self.graph, jax.tree.unflatten(self.structure, weights))


_frame = functools.cache(_Frame)


@dataclasses.dataclass(frozen=True, eq=False)
class _Frames:
    """A whole model without its weights; equal ones are one object too."""

    ends: _Frame
    blocks: tuple[_Frame, ...]


_frames = functools.cache(_Frames)


def _fused(block: Block) -> Block:
    block.fuse()
    return block


def _take_apart(module: nnx.Module) -> tuple[_Frame, _Leaves]:
    graph, state = nnx.split(module)
    weights, structure = jax.tree.flatten(state)
    return _frame(graph, structure), weights


def _kind(frame: _Frame, weights: _Leaves) -> Hashable:
    """Equal for blocks that one compiled function serves."""
    return frame, tuple((leaf.shape, leaf.dtype) for leaf in weights)


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    frame: _Frame, weights: _Leaves, tokens: Int[Array, "1 T"], start: Int[Array, ""]
) -> Float[Array, "1 T D"]:
    return frame.module(weights).embed(tokens, start + jnp.arange(tokens.shape[1]))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _run_block(
    frame: _Frame, weights: _Leaves, hidden: Float[Array, "1 T D"], cache: KeyValueCache
) -> tuple[Float[Array, "1 T D"], KeyValueCache]:
    positions = cache.length + jnp.arange(hidden.shape[1])
    return frame.module(weights)(hidden, positions, cache)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _step(
    frames: _Frames,
    weights: list[_Leaves],
    token: Int[Array, ""],
    cache: list[CachePlanes],
    length: Int[Array, ""],
) -> tuple[Float[Array, " V"], list[CachePlanes], Int[Array, ""]]:
    """One token through the whole model; `weights` are those of the ends, then of each block."""
    ends = frames.ends.module(weights[0])
    positions = length[None]
    hidden = ends.embed(token[None, None], positions)
    added = []
    for frame, leaves, planes in zip(frames.blocks, weights[1:], cache, strict=True):
        block = frame.module(leaves)
        hidden, layer = block(hidden, positions, KeyValueCache.of(planes, length))
        added.append(layer.planes)
    return ends.logits(hidden)[0, 0], added, length + 1


@functools.partial(jax.jit, static_argnums=2)
def _trim(cache: KeyValueCache, length: Int[Array, ""], room: int) -> KeyValueCache:
    """The first `length` tokens, with room for more."""
    return dataclasses.replace(cache.resized(room), length=length)


@functools.partial(jax.jit, static_argnums=0)
def _next_logits(
    frame: _Frame, weights: _Leaves, hidden: Float[Array, "1 T D"], last: Int[Array, ""]
) -> Float[Array, " V"]:
    """Scores of the token behind position `last`."""
    row = jax.lax.dynamic_slice_in_dim(hidden, last, 1, axis=1)
    return frame.module(weights).logits(row)[0, 0]
