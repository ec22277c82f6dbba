"""RigL: the rigged lottery, which grows weights where the loss would gain most."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.methods._dynamic import Dynamic
from gossamer.sparsity.schedules import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class RigL(Dynamic):
    """Drops the smallest weights and grows as many where gradients are largest.

    The gradients are those of all weights, pruned ones too, at the step on which masks change.

    Source: Evci et al. 2020, arXiv 1911.11134, algorithm 1.
    """

    def masks_gradients(self, step: Step) -> Bool[Array, ""]:
        """But for the steps on which masks change, which look at all of them."""
        assert self.schedule.stop is not None
        # At `stop` nothing is dropped any more, so nothing grows.
        return ~jnp.asarray(self.schedule.due(step) & (step < self.schedule.stop))

    def growth(
        self, path: str, weight: Array, grad: Array, step: Int[Array, ""]
    ) -> Float[Array, "*dims"]:
        """The size of the gradient."""
        del path, weight, step
        return jnp.abs(grad)
