"""RigL: the rigged lottery, which grows weights where the loss would gain most."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gossamer.sparsity.methods._dynamic import Dynamic


@dataclasses.dataclass(frozen=True, kw_only=True)
class RigL(Dynamic):
    """Drops the smallest weights and grows as many where gradients are largest.

    The gradients are those of all weights, pruned ones too, at the step on which masks change.

    Source: Evci et al. 2020, arXiv 1911.11134, algorithm 1.
    """

    def growth(
        self, path: str, weight: Array, grad: Array, step: Int[Array, ""]
    ) -> Float[Array, "*dims"]:
        """The size of the gradient."""
        del path, weight, step
        return jnp.abs(grad)
