"""Gradients of rounded values, taken back to the values that were rounded."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.quantization.formats import Codes, Format
from gossamer.quantization.integers import Int
from gossamer.quantization.products import Rows


def pull_back(
    cotangent: Float[Array, "in out"],
    kernel: Float[Array, "in out"],
    mask: Bool[Array, "in out"] | None,
    codes: Codes,
    format: Format,
    flowing: bool,
) -> Float[Array, "in out"]:
    r"""The gradient in the kernel, of that in its rounded values.

    Straight through, but for what is pruned and for what lies more than half a step beyond the
    ends of the grid. Not by differentiating a clip: at an end JAX gives half of the gradient, and
    every absmax is at one.

    Args:
        cotangent: the gradient G in the rounded values.
        kernel: what was rounded.
        mask: True where a weight is kept.
        codes: what it became.
        format: the format of the codes.
        flowing: adds the gradient through each group's scale, that is the derivative of the scale
            times the sum over the group of G (q - w / s), or of G q where w is beyond the ends.
    """
    groups, out = codes.scales.shape
    shape = (groups, -1, out)
    if mask is not None:
        cotangent = jnp.where(mask, cotangent, 0)
    if not flowing and _never_clips(format):
        return cotangent.astype(kernel.dtype)
    blocks = kernel.astype(jnp.float32)
    if codes.tensor_scale is not None:
        blocks = blocks * (1 / codes.tensor_scale)
    blocks = blocks.reshape(shape)
    scales = codes.scales[:, None, :]
    zeros = jnp.float32(0) if codes.zeros is None else codes.zeros[:, None, :].astype(jnp.float32)
    steps = blocks * (1 / scales)
    low, high = (end - zeros for end in format.ends)
    margin = format.widest_step / 2
    inside = (steps >= low - margin) & (steps <= high + margin)
    g = cotangent.reshape(shape)
    straight = jnp.where(inside, g, 0)
    if flowing:
        moved = codes.codes.reshape(shape).astype(jnp.float32) - zeros - jnp.where(inside, steps, 0)
        reach, pull = jax.vjp(_reach(format), blocks)
        share = jnp.where(reach > 0, codes.scales / jnp.where(reach > 0, reach, 1), 0)
        straight = straight + pull(share * jnp.sum(g * moved, axis=1))[0]
    return straight.reshape(kernel.shape).astype(kernel.dtype)


def pull_back_rows(
    cotangent: Float[Array, "rows in"],
    x: Float[Array, "rows in"],
    rows: Rows,
    format: Int,
    flowing: bool,
) -> Float[Array, "rows in"]:
    """The same of rows with a scale each, or of all rows with one."""
    if not flowing and _never_clips(format):
        return cotangent
    if rows.scales.shape[0] == 1 != x.shape[0]:
        column = (-1, 1)
        codes = Codes(rows.codes.reshape(column), rows.scales)
        taken = pull_back(
            cotangent.reshape(column), x.reshape(column), None, codes, format, flowing
        )
        return taken.reshape(x.shape)
    codes = Codes(rows.codes.T, rows.scales.T)
    return pull_back(cotangent.T, x.T, None, codes, format, flowing).T


def _never_clips(format: Format) -> bool:
    """Whether the grid of every group reaches all of its elements."""
    return (
        isinstance(format, Int)
        and format.symmetric
        and format.clip is None
        and format.scale in ("float32", "e8m0")
    )


def _reach(format: Format) -> Callable[[Array], Array]:
    """What a group's scale is proportional to."""

    def reach(blocks: Float[Array, "groups group out"]) -> Float[Array, "groups out"]:
        if format.symmetric:
            return jnp.max(jnp.abs(blocks), axis=1)
        low, high = jnp.min(blocks, axis=1), jnp.max(blocks, axis=1)
        return jnp.maximum(high, 0) - jnp.minimum(low, 0)

    return reach
