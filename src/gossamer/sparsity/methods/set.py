"""SET: sparse evolutionary training, which grows weights at random."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from gossamer.sparsity.methods._dynamic import Dynamic


@dataclasses.dataclass(frozen=True, kw_only=True)
class SET(Dynamic):
    """Drops the smallest weights and grows as many at random.

    Source: Mocanu et al. 2018, arXiv 1707.04780, in the form of Evci et al. 2020, arXiv 1911.11134
    (one magnitude for both signs, and a fraction that falls with a cosine), as JaxPruner has it.
    """

    def growth(
        self, path: str, weight: Array, grad: Array, step: Int[Array, ""]
    ) -> Float[Array, "*dims"]:
        """Uniform numbers."""
        del grad
        return jax.random.uniform(self.key(path, step), weight.shape)
