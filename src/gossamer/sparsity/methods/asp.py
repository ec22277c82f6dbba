"""ASP: prune a trained model once, then train what is left with the same schedule again."""

import dataclasses
from typing import Any

from gossamer.sparsity.methods.method import SparseState, mask_gradients
from gossamer.sparsity.methods.one_shot import OneShot
from gossamer.sparsity.schedules import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class ASP(OneShot):
    """One-shot magnitude pruning in which the optimizer sees no gradient of what is pruned.

    The optimizer's moments are not reset, as published; the zeros are restored after every step,
    so old momentum revives nothing. ASP's search for a permutation of channels is not part of it.

    Source: Mishra et al. 2021, arXiv 2104.08378, section 4, and its code in NVIDIA's apex.
    """

    def masks_gradients(self, step: Step) -> bool:
        """At every step."""
        del step
        return True

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients of what is kept, by the masks of this step."""
        grads, state = super().update(grads, state, params)
        return mask_gradients(grads, state.masks), state
