"""Runs a model a block at a time, so that one block's weights are in memory and the rest on disk.

Evaluation and one-shot compression both walk a model this way: hidden states go in, hidden states
come out, and the blocks of a model share one compiled function.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.loading import Checkpoint
from gossamer.models import build_block, build_ends

TOKENS_PER_CALL = 1024
"""Tokens that go through a block in one call. Tried: 8192, products 30 % slower on two cores."""


def embed(checkpoint: Checkpoint, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The hidden states that enter the first block."""
    graph, state = nnx.split(build_ends(checkpoint.config, checkpoint.read))
    return _embed(graph, state, tokens)


def run_block(block: nnx.Module, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Puts whole sequences through one block, a few at a time."""
    graph, state = nnx.split(block)
    return jnp.concatenate([apply_block(graph, state, part) for part in batches(hidden)])


def run_blocks(
    checkpoint: Checkpoint,
    hidden: Float[Array, "B T D"],
    advance: Callable[[], None] = lambda: None,
    watch: Callable[[Float[Array, "B T D"]], None] = lambda _: None,
) -> Float[Array, "B T D"]:
    """Puts whole sequences through all blocks in order.

    After each block `watch` is called with the hidden states that left it, then `advance`.
    """
    for index in range(checkpoint.config.num_layers):
        hidden = run_block(build_block(checkpoint.config, checkpoint.read, index), hidden)
        # Without waiting, the weights of all blocks would be read before the first has run.
        jax.block_until_ready(hidden)
        watch(hidden)
        advance()
    return hidden


def batches(hidden: Float[Array, "B T D"]) -> Iterator[Float[Array, "b T D"]]:
    """Cuts a batch in equal parts of at most `TOKENS_PER_CALL` tokens, or of one sequence."""
    count, length = hidden.shape[:2]
    most = max(1, TOKENS_PER_CALL // length)
    # Equal parts, so that one compiled function serves all.
    step = max(size for size in range(1, min(most, count) + 1) if count % size == 0)
    for start in range(0, count, step):
        yield hidden[start : start + step]


@functools.partial(jax.jit, static_argnums=0)
def apply_block(
    graph: nnx.GraphDef, state: nnx.State, hidden: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """One block on whole sequences, positions from 0."""
    out, _ = nnx.merge(graph, state)(hidden, jnp.arange(hidden.shape[1]))
    return out


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    graph: nnx.GraphDef, state: nnx.State, tokens: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    return nnx.merge(graph, state).embed(tokens, jnp.arange(tokens.shape[1]))
