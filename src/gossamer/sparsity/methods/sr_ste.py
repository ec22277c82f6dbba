"""SR-STE: straight-through training in which pruned weights decay."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity.methods._dense import DenseStorage
from gossamer.sparsity.methods.method import SparseState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SRSTE(DenseStorage):
    r"""Sparse-refined straight-through estimation.

    .. math:: G = g + \lambda_W (1 - \Phi) W

    g is the gradient at the masked weights :math:`\Phi W`. The term is part of what the optimizer
    sees, so moments, and clipping inside the method, see it; clipping before the method does not.

    Attributes:
        decay: lambda_W; with Adam it is divided by the root of the second moment like any gradient.

    Source: Zhou et al. 2021, arXiv 2102.04010, eq. 9, and its code for the default of 2e-4.
    """

    decay: float = 2e-4

    def __post_init__(self) -> None:
        if self.decay < 0:
            raise ValueError(f"SRSTE needs decay >= 0, got decay={self.decay}.")

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients plus the decay of what is pruned."""
        weights, gradients, refined = self.selected(params), leaves_by_path(grads), {}
        for path, mask in state.masks.items():
            weight, grad = weights[path], gradients[path]
            term = jnp.where(mask.keep(weight.shape), 0, self.decay * weight)
            refined[path] = grad + term.astype(grad.dtype)
        return replace_leaves(grads, refined), state
