"""Pruning at random: the baseline that any score must beat."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.methods._pruner import Pruner


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomPruning(Pruner):
    """Prunes uniformly at random among what is kept; what is pruned stays so.

    Source: the baseline `random` of JaxPruner, arXiv 2304.14082.
    """

    def score(
        self,
        path: str,
        weight: Array,
        grad: Array | None,
        keep: Bool[Array, "*dims"],
        step: Int[Array, ""],
    ) -> Float[Array, "*dims"]:
        """Uniform numbers for what is kept, lower ones for what is not."""
        del grad
        return jnp.where(keep, jax.random.uniform(self.key(path, step), weight.shape), -1)
