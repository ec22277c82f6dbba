r"""AWQ: the channels that the largest activations meet are scaled up before weights are rounded.

For an input with mean magnitudes m and r in 0, 0.05, ..., 0.95:

.. math:: s = m^r / \sqrt{\max(m^r) \min(m^r)}

The weights are multiplied by s and rounded; what makes the input is divided by it. The r with the
least squared error of the output is taken, and then each group of weights is clipped where that
lowers the error of its share of the output.

Source: Lin et al. 2023, arXiv 2306.00978, and its released code. Where the output is a projection's
own, errors are computed from the Gram matrix, so over all calibration tokens; the released code
clips by 512 of them. Where it is that of the whole attention or feed-forward layer, they are
computed over `SEARCH_TOKENS` of the calibration tokens.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gossamer.compression.methods.method import (
    CalibratedBlock,
    Method,
    Scaling,
    Solved,
    Task,
    linear,
    needs_format,
    prunes_not,
)
from gossamer.compression.methods.rtn import nearest
from gossamer.compression.observe import kernel_inputs
from gossamer.models import Block, Flow, Rescalable, Sublayer, rows
from gossamer.quantization import Format
from gossamer.recipe import Rule

SEARCH_TOKENS = 4096
"""Calibration tokens by which a whole layer's output is judged: it is computed 20 times."""

RATIOS = tuple(i / 20 for i in range(20))
CLIPS = tuple(1 - i / 20 for i in range(10))
_SMALLEST = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class AWQ(Method):
    """Scales channels up by their activations, as a search over the output's error finds best."""

    name: ClassVar[str] = "awq"

    def why_not(self, rule: Rule) -> str | None:
        """It does not prune, and needs a format."""
        return prunes_not(self.name, rule) or needs_format(self.name, rule)

    def rescales(self, pair: Rescalable) -> bool:
        """Every input that can be."""
        return True

    def scalings(self, block: CalibratedBlock, pairs: Sequence[Rescalable]) -> Sequence[Scaling]:
        """The best factors of each input, each searched in the block as it was."""
        return [(pair, _search(block, pair)) for pair in pairs]

    def compress(self, task: Task) -> Solved:
        """Clips and rounds. Queries and keys are not clipped: what counts is their product."""
        format, kernel = task.rule.weights, task.kernel
        assert format is not None
        if not task.feeds_scores:
            kernel = clip(kernel, task.hessian, format)
        return nearest(kernel, None, format)


def channel_factors(absmean: Float[Array, " in"], ratio: float) -> Float[Array, " in"]:
    """What the channels of an input are divided by.

    Args:
        absmean: mean magnitude of each channel.
        ratio: exponent r, 0 to 1.

    Example:
        >>> channel_factors(jnp.array([4.0, 1.0]), 0.5)
        Array([1.4142135 , 0.70710677], dtype=float32)
    """
    powers = jnp.maximum(absmean**ratio, _SMALLEST)
    return powers / jnp.sqrt(jnp.max(powers) * jnp.min(powers))


def _search(block: CalibratedBlock, pair: Rescalable) -> Float[Array, " in"]:
    """The factors whose rounded weights change the inspected output least; the first of equals."""
    names = [f"{name}.kernel" for name in pair.projections]
    statistics = block.inputs[names[0]]
    formats = tuple(block.rules[name].weights for name in names)
    candidates = [channel_factors(statistics.absmean, ratio) for ratio in RATIOS]
    if pair.sublayer is None:
        kernels = [block.kernel(name) for name in pair.projections]
        losses = [_product_loss(statistics.gram, kernels, formats, s) for s in candidates]
    else:
        sequences = max(1, SEARCH_TOKENS // jax.tree.leaves(block.flow)[0].shape[1])
        flow = rows(block.flow, 0, sequences)
        x = kernel_inputs(block.block, flow, names[:1])[names[0]]
        graph, state = nnx.split(block.block)
        want = _sublayer(graph, state, x, flow, pair.sublayer)
        real = block.block.real_tokens(names[0], flow)
        losses = [
            _sublayer_loss(graph, state, x, flow, want, real, s, pair, formats) for s in candidates
        ]
    return candidates[int(jnp.argmin(jnp.stack(losses)))]


def _rounded(
    kernel: Float[Array, "in out"], factors: Float[Array, " in"], format: Format
) -> Float[Array, "in out"]:
    """What a kernel multiplies the unscaled input by, once it is scaled and rounded."""
    return format.quantize(kernel * factors[:, None]) / factors[:, None]


@functools.partial(jax.jit, static_argnums=2)
def _product_loss(
    gram: Float[Array, "in in"],
    kernels: Sequence[Float[Array, "in _"]],
    formats: tuple[Format, ...],
    factors: Float[Array, " in"],
) -> Float[Array, ""]:
    """Squared error of the products, over all tokens and outputs."""
    total = jnp.zeros(())
    for kernel, format in zip(kernels, formats, strict=True):
        change = _rounded(kernel, factors, format) - kernel
        total += jnp.sum(change * jnp.matmul(gram, change))
    return total


@functools.partial(jax.jit, static_argnums=(0, 4))
def _sublayer(
    graph: nnx.GraphDef, state: nnx.State, x: Float[Array, "B T D"], flow: Flow, which: Sublayer
) -> Float[Array, "B T D"]:
    block = nnx.merge(graph, state)
    assert isinstance(block, Block)
    return block.sublayer(which, x, flow)


@functools.partial(jax.jit, static_argnums=(0, 7, 8))
def _sublayer_loss(
    graph: nnx.GraphDef,
    state: nnx.State,
    x: Float[Array, "B T D"],
    flow: Flow,
    want: Float[Array, "B T D"],
    real: Bool[Array, "B T"] | None,
    factors: Float[Array, " D"],
    pair: Rescalable,
    formats: tuple[Format, ...],
) -> Float[Array, ""]:
    """Mean squared error of a layer's output when some of its kernels are scaled and rounded.

    Padding counts as if it had no error.
    """
    block = nnx.merge(graph, state)
    assert isinstance(block, Block)
    assert pair.sublayer is not None
    for name, format in zip(pair.projections, formats, strict=True):
        variable = linear(block, name).kernel
        variable.set_value(_rounded(variable.get_value(), factors, format))
    got = block.sublayer(pair.sublayer, x, flow)
    error = got - want if real is None else jnp.where(real[..., None], got - want, 0)
    return jnp.mean(error**2)


@functools.partial(jax.jit, static_argnums=2)
def clip(
    kernel: Float[Array, "in out"], gram: Float[Array, "in in"], format: Format
) -> Float[Array, "in out"]:
    """Clips each group of weights at the share of its largest magnitude that costs least.

    Of the shares 1, 0.95, ..., 0.55 the one is taken whose rounded weights change the group's part
    of the output least; of equals the largest.

    Args:
        kernel: the weights.
        gram: sum of the outer products of the inputs.
        format: what they are rounded to afterwards.
    """
    size, out = kernel.shape
    groups = format.groups(size)
    weights = kernel.reshape(groups, -1, out)
    numbers = jnp.arange(groups)
    # The Gram matrices of the inputs of each group.
    grams = gram.reshape(groups, size // groups, groups, -1)[numbers, :, numbers]
    absmax = jnp.max(jnp.abs(weights), axis=1, keepdims=True)

    def clipped(share: Float[Array, "*#dims"]) -> Float[Array, "groups group out"]:
        return jnp.clip(weights, -share * absmax, share * absmax)

    def error(share: Float[Array, ""]) -> Float[Array, "groups out"]:
        rounded = format.quantize(clipped(share).reshape(size, out))
        change = rounded.reshape(weights.shape) - weights
        return jnp.sum(change * jnp.einsum("gij,gjo->gio", grams, change), axis=1)

    shares = jnp.array(CLIPS, jnp.float32)
    best = shares[jnp.argmin(jax.lax.map(error, shares), axis=0)]
    return clipped(best[:, None, :]).reshape(size, out)
