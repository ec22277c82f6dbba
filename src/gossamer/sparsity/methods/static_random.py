"""Static random masks: what any method must beat that looks at weights."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Bool

from gossamer.sparsity.methods.frozen import Frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class StaticRandom(Frozen):
    """Fixed masks that are drawn before the first step.

    Source: the baseline `static_sparse` of JaxPruner, arXiv 2304.14082.
    """

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """As many as the pattern says, uniformly at random."""
        weights = self.selected(params)
        return {
            path: pattern.mask(
                jax.random.uniform(self.key(path, 0), weights[path].shape), self.axis
            )
            for path, pattern in self.patterns(params).items()
        }
