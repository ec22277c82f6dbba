"""STE: pruned in the forward pass, dense gradients straight through to dense weights."""

import dataclasses
from typing import Literal

import jax
from jaxtyping import Array, Bool, Int

from gossamer.sparsity.methods._dense import DenseStorage
from gossamer.sparsity.patterns import Pattern


@dataclasses.dataclass(frozen=True, kw_only=True)
class STE(DenseStorage):
    """Straight-through training: gradients at the masked weights change the dense ones unaltered.

    Attributes:
        score: what stays: the largest weights, or others at random at every change of masks.

    Source: Bengio et al. 2013, arXiv 1308.3432, for the estimator; Zhou et al. 2021, arXiv
    2102.04010, for masks, as SR-STE without its decay; `random` is JaxPruner's `random_ste`.
    """

    score: Literal["magnitude", "random"] = "magnitude"

    def new_mask(
        self, path: str, weight: Array, pattern: Pattern, step: Int[Array, ""]
    ) -> Bool[Array, "*dims"]:
        """The mask of one weight for the forward pass of `step`."""
        if self.score == "magnitude":
            return super().new_mask(path, weight, pattern, step)
        drawn = jax.random.uniform(self.key(path, step), weight.shape)
        return pattern.mask(drawn, self.axis, self._progress(pattern, step))
