"""Saliency pruning: what the loss would change by, to first order, if a weight were 0."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.methods._pruner import Pruner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saliency(Pruner):
    r"""Keeps the weights with the largest :math:`|w \, \partial L / \partial w|`.

    The gradient is that of the step on which masks change.

    Source: Molchanov et al. 2016, arXiv 1611.06440, eq. 7, for single weights as in JaxPruner,
    arXiv 2304.14082.
    """

    def score(
        self,
        path: str,
        weight: Array,
        grad: Array | None,
        keep: Bool[Array, "*dims"],
        step: Int[Array, ""],
    ) -> Float[Array, "*dims"]:
        """The product's magnitude, for what is kept."""
        del step
        if grad is None:
            raise ValueError(
                f"Saliency needs the gradient of {path}: call "
                "optimizer.refresh(gradients, state, params) with those of the forward weights."
            )
        return jnp.where(keep, jnp.abs(weight * grad), 0)
