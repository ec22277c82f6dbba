"""How likely a model holds given tokens to be."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

POSITIONS_PER_STEP = 128
"""Positions whose logits are held at once: 128 x 49152 float32 logits are 25 MB. Tried: 256 and all
1024, 5 % and 50 % slower on two cores, for the memory that is written."""


@functools.partial(jax.jit, static_argnums=0)
def loss_sum(
    graph: nnx.GraphDef,
    state: nnx.State,
    hidden: Float[Array, "T D"],
    tokens: Int[Array, " T"],
    counted: Bool[Array, " T"],
) -> Float[Array, ""]:
    """Sum of the negative log-likelihoods, in nats, of a row's tokens.

    Args:
        graph: of a model without its blocks, split.
        state: its weights.
        hidden: what leaves the last block.
        tokens: what each place should predict.
        counted: places that predict something.
    """
    model = nnx.merge(graph, state)

    def step(total: Float[Array, ""], part: tuple[Array, Array, Array]):
        states, target, weight = part
        logits = model.logits(states[None])[0]
        picked = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
        losses = jax.nn.logsumexp(logits, axis=1) - picked
        return total + jnp.sum(jnp.where(weight, losses, 0)), None

    parts = (_steps(hidden), _steps(tokens), _steps(counted))
    return jax.lax.scan(step, jnp.zeros(()), parts)[0]


def _steps(array: Array) -> Array:
    """Cuts the first axis in steps of `POSITIONS_PER_STEP`, padded with zeros."""
    short = -array.shape[0] % POSITIONS_PER_STEP
    padded = jnp.pad(array, [(0, short)] + [(0, 0)] * (array.ndim - 1))
    return padded.reshape(-1, POSITIONS_PER_STEP, *array.shape[1:])
