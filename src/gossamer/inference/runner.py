"""A model ready to read a prompt and to give token after token, with what it has seen in a cache.

Blocks that are stored alike make a stack: their planes have an axis of layers, one program does for
all, and calling it takes a dozen arrays in place of hundreds. A prompt goes through a stack at a
time; a step is one program of all of them, since calling thirty takes longer than what they do.
Products that share an input are one, and the cache is updated in place.
"""

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from gossamer.kernels.attention import CachePlanes
from gossamer.kernels.pages import use_huge_pages
from gossamer.loading import Checkpoint
from gossamer.models import Cache, DecoderConfig, build_block, build_ends, decoder_config
from gossamer.nn.attention import CacheType, KeyValueCache
from gossamer.packing import Packed

_LEAST_LENGTH = 16

Leaves: TypeAlias = list[jax.Array]
"""Of a module's weights: a plain list is taken apart in a fraction of the time of a state."""


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
        config = decoder_config(checkpoint.config)
        self.config = config
        self._cache: CacheType = cache
        self._ends = take_apart(build_ends(config, checkpoint.read))
        self._stacks = _stacks(config, checkpoint)
        self._frames = _frames(self._ends[0], tuple(stack for stack, _ in self._stacks))
        self._weights = [self._ends[1], *(weights for _, weights in self._stacks)]
        use_huge_pages(jax.tree.leaves(self._weights))

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
        for stack, weights in self._stacks:
            empty, layers = self._empty(stack, length), jnp.int32(stack.layers or 1)
            hidden, filled = _run_stack(stack, weights, hidden, empty, layers)
            cache.append(_trim(filled, jnp.int32(len(prompt)), room))
        return _next_logits(*self._ends, hidden, jnp.int32(len(prompt) - 1)), cache

    def step(self, token: Int[Array, ""], cache: Cache) -> tuple[Float[Array, " V"], Cache]:
        """Reads one token more; `cache` is used up, the one that comes back takes its place.

        The cache must have room for it: the caller counts.
        """
        # Every layer has seen the same tokens; a model without layers has no use for positions.
        length = cache[0].length if cache else jnp.int32(0)
        planes = [layers.planes for layers in cache]
        logits, planes, length = _step(self._frames, self._weights, token, planes, length)
        return logits, [KeyValueCache.of(layers, length) for layers in planes]

    def compile(self, prompt_tokens: int, tokens: int) -> None:
        """Compiles what `prefill` and `step` need for these lengths, so that they can be timed.

        Puts zeros through no layer of a stack, or one block of each kind, and through a step.
        """
        length, room = self._lengths(prompt_tokens, tokens)
        kinds = {_kind(stack, weights): (stack, weights) for stack, weights in self._stacks}
        hidden = _embed(*self._ends, jnp.zeros((1, length), jnp.int32), jnp.int32(0))
        for stack, weights in kinds.values():
            empty = self._empty(stack, length)
            hidden, filled = _run_stack(stack, weights, hidden, empty, jnp.int32(0))
            _trim(filled, jnp.int32(0), room)
        _next_logits(*self._ends, hidden, jnp.int32(0))
        cache = [self._empty(stack, room) for stack, _ in self._stacks]
        logits, _ = self.step(jnp.int32(0), cache)
        jax.block_until_ready(logits)

    def _lengths(self, prompt_tokens: int, tokens: int) -> tuple[int, int]:
        limit = self.config.max_positions
        return padded_length(prompt_tokens, limit), padded_length(tokens, limit)

    def _empty(self, stack: "_Stack", tokens: int) -> KeyValueCache:
        return KeyValueCache.empty(
            batch_size=1,
            num_kv_heads=self.config.num_kv_heads,
            max_tokens=tokens,
            head_dim=self.config.head_dim,
            dtype=self._cache,
            layers=stack.layers,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A module without its weights.

    Equal frames are one object and compared as such: comparing graph definitions on every call
    takes 0.3 ms, as long as a small block.
    """

    graph: nnx.GraphDef[Any]
    structure: Any  # of the weights: a jax.tree_util.PyTreeDef, which is no type to pyright

    def module(self, weights: Leaves, layer: Int[Array, ""] | None = None) -> Any:
        """The module with these weights, or with those of one layer of a stack."""
        state = jax.tree.unflatten(self.structure, weights)
        if layer is not None:
            state = jax.tree.map(lambda each: _at(each, layer), state, is_leaf=_is_packed)
        return nnx.merge(self.graph, state)


_frame = functools.cache(Frame)


@dataclasses.dataclass(frozen=True, eq=False)
class _Stack:
    """Blocks stored alike, without their weights; equal ones are one object too.

    Attributes:
        frame: of each block.
        layers: how many; None is a block alone, whose weights have no axis of layers.
    """

    frame: Frame
    layers: int | None


_stack = functools.cache(_Stack)


@dataclasses.dataclass(frozen=True, eq=False)
class _Frames:
    """A whole model without its weights; equal ones are one object too."""

    ends: Frame
    stacks: tuple[_Stack, ...]


_frames = functools.cache(_Frames)


def _is_packed(weight: object) -> bool:
    return isinstance(weight, Packed)


def _at(weight: Packed | Array, layer: Int[Array, ""]) -> Packed | Array:
    """One layer's weight; of packed ones there is no copy."""
    if isinstance(weight, Packed):
        return weight.at(layer)
    return lax.dynamic_index_in_dim(weight, layer, 0, keepdims=False)


def take_apart(module: nnx.Module) -> tuple[Frame, Leaves]:
    """A module as what is compiled for and the arrays that it is called with."""
    graph, state = nnx.split(module)
    weights, structure = jax.tree.flatten(state)
    return _frame(graph, structure), weights


def _stacks(config: DecoderConfig, checkpoint: Checkpoint) -> list[tuple[_Stack, Leaves]]:
    """Reads the blocks, and stacks those in a row that one program serves."""
    blocks = []
    for index in range(config.num_layers):
        block = build_block(config, checkpoint.read, index)
        block.fuse()
        frame, weights = take_apart(block)
        blocks.append((_stack(frame, None), weights))
    stacks = []
    for _, group in itertools.groupby(blocks, lambda block: _kind(*block)):
        alike = list(group)
        stack, first = alike[0]
        if len(alike) == 1 or not _stackable(stack.frame, first):
            stacks += alike
            continue
        layers = [weights for _, weights in alike]
        # Plane by plane, and each layer's own is dropped: memory holds one plane twice.
        weights = [jnp.stack([layer.pop(0) for layer in layers]) for _ in range(len(first))]
        stacks.append((_stack(stack.frame, len(layers)), weights))
    return stacks


def _kind(stack: _Stack, weights: Leaves) -> Hashable:
    """Equal for what one compiled function serves."""
    return stack, tuple((leaf.shape, leaf.dtype) for leaf in weights)


def _stackable(frame: Frame, weights: Leaves) -> bool:
    """Whether every kernel is packed: of a plain array, each use would copy the layer's part."""
    state = jax.tree.unflatten(frame.structure, weights)
    plain = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_packed) if not _is_packed(leaf)]
    return all(leaf.ndim == 1 for leaf in plain)


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    frame: Frame, weights: Leaves, tokens: Int[Array, "1 T"], start: Int[Array, ""]
) -> Float[Array, "1 T D"]:
    return frame.module(weights).embed(tokens, start + jnp.arange(tokens.shape[1]))


def _through(
    stack: _Stack,
    weights: Leaves,
    hidden: Float[Array, "1 T D"],
    cache: KeyValueCache,
    layers: int | Int[Array, ""],
) -> tuple[Float[Array, "1 T D"], KeyValueCache]:
    """Puts tokens through the first `layers` blocks of a stack; a block alone is always run."""
    positions = cache.length + jnp.arange(hidden.shape[1])
    if stack.layers is None:
        return stack.frame.module(weights)(hidden, positions, cache)

    def block(layer: Int[Array, ""], carry: tuple[Array, CachePlanes]) -> tuple[Array, CachePlanes]:
        hidden, planes = carry
        before = KeyValueCache.of(planes, cache.length, layer)
        hidden, after = stack.frame.module(weights, layer)(hidden, positions, before)
        return hidden, after.planes

    hidden, planes = lax.fori_loop(0, layers, block, (hidden, cache.planes))
    return hidden, KeyValueCache.of(planes, cache.length + hidden.shape[1])


_run_stack = functools.partial(jax.jit, static_argnums=0, donate_argnums=3)(_through)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _step(
    frames: _Frames,
    weights: list[Leaves],
    token: Int[Array, ""],
    cache: list[CachePlanes],
    length: Int[Array, ""],
) -> tuple[Float[Array, " V"], list[CachePlanes], Int[Array, ""]]:
    """One token through the whole model; `weights` are those of the ends, then of each stack."""
    ends = frames.ends.module(weights[0])
    hidden = ends.embed(token[None, None], length[None])
    added = []
    for stack, leaves, planes in zip(frames.stacks, weights[1:], cache, strict=True):
        before = KeyValueCache.of(planes, length)
        hidden, after = _through(stack, leaves, hidden, before, stack.layers or 1)
        added.append(after.planes)
    return ends.logits(hidden)[0, 0], added, length + 1


@functools.partial(jax.jit, static_argnums=2)
def _trim(cache: KeyValueCache, length: Int[Array, ""], room: int) -> KeyValueCache:
    """The first `length` tokens, with room for more."""
    return dataclasses.replace(cache.resized(room), length=length)


@functools.partial(jax.jit, static_argnums=0)
def _next_logits(
    frame: Frame, weights: Leaves, hidden: Float[Array, "1 T D"], last: Int[Array, ""]
) -> Float[Array, " V"]:
    """Scores of the token behind position `last`."""
    row = jax.lax.dynamic_slice_in_dim(hidden, last, 1, axis=1)
    return frame.module(weights).logits(row)[0, 0]
