"""Global pruning: one threshold for all weights, so that each gets the sparsity it can bear."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.parameters import leaves_by_path
from gossamer.sparsity.methods._pruner import Pruner
from gossamer.sparsity.methods.gradual_magnitude import GradualMagnitude
from gossamer.sparsity.methods.method import SparseState
from gossamer.sparsity.methods.saliency import Saliency
from gossamer.sparsity.patterns import Unstructured
from gossamer.sparsity.selection import keep_highest_of_all, score_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Global(Pruner):
    """One threshold for all the weights of a rule.

    Attributes:
        normalize: scores of a weight are divided by their root sum of squares, so that layers of
            large weights do not take all the room.
    """

    normalize: bool = True

    def new_masks(
        self, grads: Any, state: SparseState, params: Any
    ) -> dict[str, Bool[Array, "*dims"]]:
        """The highest scores of each rule's weights taken together."""
        weights, gradients = self.selected(params), leaves_by_path(grads)
        rules = self.recipe.match(leaves_by_path(params))
        masks = {}
        # In order: every process of a run compiles the same program.
        for rule in dict.fromkeys(rules[path].path for path in weights):
            scores = {
                path: self._normalized(
                    self.score(
                        path,
                        weight,
                        gradients.get(path),
                        state.masks[path].keep(weight.shape),
                        state.step,
                    )
                )
                for path, weight in weights.items()
                if rules[path].path == rule
            }
            pattern = rules[next(iter(scores))].pattern
            assert isinstance(pattern, Unstructured)
            size = sum(score.size for score in scores.values())
            progress = self.schedule.progress(state.step, pattern.sparsity)
            kept = pattern.kept(size, progress)
            bits = {path: score_bits(score) for path, score in scores.items()}
            masks |= keep_highest_of_all(bits, kept)
        return masks

    def _check(self, params: Any) -> None:
        super()._check(params)
        rules = self.recipe.match(leaves_by_path(params))
        for path in self.selected(params):
            if not isinstance(rules[path].pattern, Unstructured):
                raise ValueError(
                    f"{type(self).__name__} has one threshold for all weights, which suits "
                    f"Unstructured alone; {path} has {rules[path].pattern}."
                )
        if self.distribution != "uniform":
            raise ValueError(
                f"{type(self).__name__} finds the distribution by itself; {self.distribution!r} "
                "would be ignored."
            )

    def _normalized(self, scores: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
        if not self.normalize:
            return scores
        return scores / (jnp.sqrt(jnp.sum(jnp.square(scores))) + 1e-8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalMagnitude(_Global, GradualMagnitude):
    """Keeps the largest weights of all that a rule selects.

    Source: `global_magnitude` of JaxPruner, arXiv 2304.14082, for the normalisation.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalSaliency(_Global, Saliency):
    """Keeps the weights with the largest products with their gradients, of all that a rule selects.

    Source: `global_saliency` of JaxPruner, arXiv 2304.14082, for the normalisation.
    """
