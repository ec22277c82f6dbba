"""Gradual magnitude pruning: the smallest weights go, more of them at every update."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.methods._pruner import Pruner


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradualMagnitude(Pruner):
    """Keeps the largest weights, as many as the schedule says.

    Weights that have been pruned have magnitude 0, so they come back last, if at all.

    Source: Zhu and Gupta 2017, arXiv 1710.01878, section 3.
    """

    def score(
        self,
        path: str,
        weight: Array,
        grad: Array | None,
        keep: Bool[Array, "*dims"],
        step: Int[Array, ""],
    ) -> Float[Array, "*dims"]:
        """The magnitude of each weight that is kept."""
        del path, grad, step
        return jnp.where(keep, jnp.abs(weight), 0)
