"""Runs a model a block at a time, so that one block's weights are in memory and the rest on disk.

Evaluation and one-shot compression both walk a model this way: hidden states go in, hidden states
come out, and the blocks of a model share one compiled function.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gossamer.loading import Checkpoint
from gossamer.models import Block, Flow, build_block, build_ends, rows

TOKENS_PER_CALL = 1024
"""Tokens that go through a block in one call. Tried: 8192, products 30 % slower on two cores."""
GROUP_BYTES = 256 << 20
"""Hidden states that walk through the blocks together; more inputs walk in several groups, which
read the weights again."""


def begin(checkpoint: Checkpoint, inputs: Any) -> Flow:
    """What enters the first block."""
    graph, state = nnx.split(build_ends(checkpoint.config, checkpoint.read))
    return _begin(graph, state, inputs)


def run_block(block: Block, flow: Flow) -> Flow:
    """Puts whole inputs through one block, a few at a time."""
    graph, state = nnx.split(block)
    parts = [apply_block(graph, state, part) for part in batches(flow)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def run_blocks(
    checkpoint: Checkpoint,
    flow: Flow,
    advance: Callable[[], None] = lambda: None,
    watch: Callable[[Flow], None] = lambda _: None,
) -> Flow:
    """Puts whole inputs through all blocks in order.

    After each block `watch` is called with what left it, then `advance`.
    """
    for index in range(checkpoint.config.num_blocks):
        flow = run_block(build_block(checkpoint.config, checkpoint.read, index), flow)
        # Without waiting, the weights of all blocks would be read before the first has run.
        jax.block_until_ready(flow)
        watch(flow)
        advance()
    return flow


def batches(flow: Flow) -> Iterator[Flow]:
    """Cuts a batch in equal parts of at most `TOKENS_PER_CALL` tokens, or of one sequence."""
    count, length = jax.tree.leaves(flow)[0].shape[:2]
    most = max(1, TOKENS_PER_CALL // length)
    # Equal parts, so that one compiled function serves all.
    step = max(size for size in range(1, min(most, count) + 1) if count % size == 0)
    for start in range(0, count, step):
        yield rows(flow, start, start + step)


def group_size(count: int, tokens: int, token_size: int) -> int:
    """How many of `count` inputs walk together: whole batches, and equal groups.

    Args:
        count: inputs in all.
        tokens: of an input.
        token_size: float32 numbers that a token is on its way.
    """
    batch = min(count, max(1, TOKENS_PER_CALL // tokens))
    most = max(1, GROUP_BYTES // (4 * tokens * token_size * batch))  # batches of a group
    groups = -(-count // (most * batch))
    return -(-count // (groups * batch)) * batch


@functools.partial(jax.jit, static_argnums=0)
def apply_block(graph: nnx.GraphDef, state: nnx.State, flow: Flow) -> Flow:
    """One block on whole inputs."""
    return nnx.merge(graph, state).through(flow)


@functools.partial(jax.jit, static_argnums=0)
def _begin(graph: nnx.GraphDef, state: nnx.State, inputs: Any) -> Flow:
    return nnx.merge(graph, state).begin(inputs)
