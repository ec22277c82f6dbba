r"""SmoothQuant: what is hard to quantize in activations is moved into the weights behind a norm.

.. math:: s_j = \max |X_j|^\alpha \, / \max |W_j|^{1 - \alpha}

The norm is divided by s, the kernels are multiplied by it, and weights and activations are then
rounded to nearest as the recipe says.

Source: Xiao et al. 2022, arXiv 2211.10438, eq. 4, and its released code.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.compression.methods.method import (
    CalibratedBlock,
    Method,
    Scaling,
    Solved,
    Task,
    needs_format,
    prunes_not,
)
from gossamer.compression.methods.rtn import nearest
from gossamer.models import Rescalable
from gossamer.recipe import Rule

_SMALLEST = 1e-5
"""Maxima of weights, and factors, are at least this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothQuant(Method):
    """Divides the inputs behind norms so that they and their weights are equally hard to quantize.

    Attributes:
        alpha: how much of the difficulty goes into the weights, 0 to 1; 0.8 to 0.9 have served
            larger Llama models.
    """

    name: ClassVar[str] = "smoothquant"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"smoothquant needs 0 <= alpha <= 1, got {self.alpha}.")

    def why_not(self, rule: Rule) -> str | None:
        """It is there for quantized activations."""
        if reason := prunes_not(self.name, rule) or needs_format(self.name, rule):
            return reason
        if rule.activations is None:
            return (
                f"Method {self.name!r} makes activations easier to quantize, but the rule leaves "
                "them floats; name a format in `activations`, or take the recipe w8a8."
            )
        return None

    def rescales(self, pair: Rescalable) -> bool:
        """Inputs behind norms only."""
        return pair.norm

    def scalings(self, block: CalibratedBlock, pairs: Sequence[Rescalable]) -> Sequence[Scaling]:
        """The factors of each input."""
        return [(pair, self._factors(block, pair)) for pair in pairs]

    def _factors(self, block: CalibratedBlock, pair: Rescalable) -> Float[Array, " in"]:
        kernels = [block.kernel(name) for name in pair.projections]
        absmax = block.inputs[f"{pair.projections[0]}.kernel"].absmax
        return smoothing_factors(absmax, kernels, self.alpha)

    def compress(self, task: Task) -> Solved:
        """Rounds."""
        return nearest(task.kernel, None, task.rule.weights)


def smoothing_factors(
    absmax: Float[Array, " in"], kernels: Sequence[Float[Array, "in _"]], alpha: float
) -> Float[Array, " in"]:
    """What the channels of an input are divided by.

    Args:
        absmax: largest magnitude of each channel.
        kernels: all that multiply by the input.
        alpha: the exponent of the activations, 0 to 1.

    Example:
        >>> smoothing_factors(jnp.array([8.0, 1.0]), [jnp.array([[0.5], [1.0]])], 0.5)
        Array([4., 1.], dtype=float32)
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(kernel), axis=1) for kernel in kernels]), axis=0)
    weights = jnp.maximum(largest, _SMALLEST)
    return jnp.maximum(absmax**alpha / weights ** (1 - alpha), _SMALLEST)
