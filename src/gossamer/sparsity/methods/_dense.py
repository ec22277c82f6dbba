"""What methods share that keep dense weights and prune what the forward pass sees."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity.distributions import density
from gossamer.sparsity.masks import Mask
from gossamer.sparsity.methods.method import Method, SparseState, Weights, no_flips
from gossamer.sparsity.patterns import Pattern
from gossamer.sparsity.schedules import ALWAYS, Periodic, Schedule, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseStorage(Method):
    """Weights stay dense; masks follow them, and what is pruned may come back.

    Masks are those of the weights that the next forward pass starts from, as the optimizer's step
    leaves them: a transformation that comes after the method in a chain would change that.

    Attributes:
        schedule: when masks change. Before its start the model is dense; after a ramp has come to
            its end masks go on changing at the same period.
    """

    schedule: Schedule = ALWAYS

    def factor(self, step: Int[Array, ""]) -> Float[Array, ""] | None:
        """What the forward pass leaves of a pruned weight, in [0, 1]; None is 0 at all steps."""
        del step
        return None

    def new_mask(
        self, path: str, weight: Array, pattern: Pattern, step: Int[Array, ""]
    ) -> Bool[Array, "*dims"]:
        """The mask of one weight for the forward pass of `step`."""
        del path
        return pattern.mask(jnp.abs(weight), self.axis, self._progress(pattern, step))

    def density(self, pattern: Pattern, step: Step) -> float | Float[Array, ""]:
        """What the masks of this step keep; all while pruned weights are only scaled down."""
        kept = density(pattern, self.schedule.held(step, pattern.sparsity))
        factor = self.factor(jnp.asarray(step))
        return kept if factor is None else jnp.where(factor > 0, 1.0, kept)

    def due(self, step: Int[Array, ""] | int) -> Bool[Array, ""] | bool:
        """Whether masks change before the forward pass of this step."""
        since = step - self.schedule.start
        periodic = (since >= 0) & (since % self.schedule.every == 0)
        # A ramp is at its target at its last step, whether its period divides it or not.
        return periodic if self.schedule.stop is None else periodic | (step == self.schedule.stop)

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """All of every weight, or what the pattern keeps if the schedule starts at once."""
        if not self.due(0):
            return super().first_masks(params)
        return self._new_masks(self.selected(params), params, jnp.zeros((), jnp.int32))

    def forward(self, weights: Weights, state: SparseState) -> Weights:
        """Pruned weights times `factor`."""
        return _scale_pruned(weights, state.masks, self.factor(state.step))

    def after(
        self, updates: Any, inner: Any, state: SparseState, params: Any
    ) -> tuple[Any, Any, SparseState]:
        """The masks of the weights as they are after these updates."""
        stored, changes = self.selected(params), leaves_by_path(updates)
        new: Weights = {
            path: jnp.asarray(weight + changes[path]).astype(weight.dtype)
            for path, weight in stored.items()
        }

        def change() -> SparseState:
            return self.change(state, self._new_masks(new, params, state.step))

        if self.schedule.start == 0 and self.schedule.every == 1:
            return updates, inner, change()
        due = jnp.asarray(self.due(state.step))
        same = dataclasses.replace(state, flips=no_flips(state.masks))
        return updates, inner, jax.lax.cond(due, change, lambda: same)

    def _new_masks(
        self, weights: Weights, params: Any, step: Int[Array, ""]
    ) -> dict[str, Bool[Array, "*dims"]]:
        return {
            path: self.new_mask(path, weights[path], pattern, step)
            for path, pattern in self.patterns(params).items()
        }

    def _progress(self, pattern: Pattern, step: Int[Array, ""]) -> float | Float[Array, ""]:
        if type(self.schedule) is Periodic:
            return 1.0
        return self.schedule.progress(step, pattern.sparsity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated(DenseStorage):
    """A method whose gradient at pruned weights is a choice.

    Attributes:
        gradient: `chain` gives a pruned weight what the product rule says, its gradient times
            `factor`; `open` gives it all of it, straight through, as much published code does.
    """

    gradient: Literal["chain", "open"] = "chain"

    def masks_gradients(self, step: Step) -> bool:
        """Where the product rule says so."""
        del step
        return self.gradient == "chain"

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients of pruned weights times `factor`, or as they are."""
        if self.gradient == "open":
            return grads, state
        chosen = {path: leaves_by_path(grads)[path] for path in state.masks}
        gated = _scale_pruned(chosen, state.masks, self.factor(state.step))
        return replace_leaves(grads, gated), state


def _scale_pruned(
    weights: Weights, masks: Mapping[str, Mask], factor: Float[Array, ""] | None
) -> Weights:
    """Weights with what is pruned times `factor`; zeros, not 0 times Inf, where that is 0."""
    scaled = {}
    for path, mask in masks.items():
        weight = weights[path]
        if factor is None:
            scaled[path] = mask.apply(weight)
        else:
            rest = jnp.where(factor > 0, factor.astype(weight.dtype) * weight, 0)
            scaled[path] = jnp.where(mask.keep(weight.shape), weight, rest)
    return scaled
