"""Fixed masks: training what an earlier method, or someone else, has left."""

import dataclasses
from typing import Any

from jaxtyping import Array, Bool

from gossamer.sparsity.methods.method import Method, SparseState, mask_gradients, zero_pruned
from gossamer.sparsity.schedules import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Method):
    """Keeps zeros at zero: a weight is pruned if it is 0 when training starts.

    Masks from elsewhere are set by `with_masks`. The pattern says which weights are meant; whether
    they have it already is not checked.
    """

    def masks_gradients(self, step: Step) -> bool | Bool[Array, ""]:
        """At every step."""
        del step
        return True

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """What is not 0."""
        return {path: weight != 0 for path, weight in self.selected(params).items()}

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients of what is kept."""
        return mask_gradients(grads, state.masks), state

    def after(
        self, updates: Any, inner: Any, state: SparseState, params: Any
    ) -> tuple[Any, Any, SparseState]:
        """Updates by which what is pruned becomes 0."""
        return zero_pruned(updates, params, state.masks), inner, state
