"""What methods share that zero the stored weights at scheduled steps."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gossamer.parameters import leaves_by_path
from gossamer.sparsity.distributions import density
from gossamer.sparsity.methods.method import Method, SparseState, no_flips, zero_pruned
from gossamer.sparsity.patterns import Pattern
from gossamer.sparsity.schedules import Schedule, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruner(Method):
    """Masks change at the steps of a schedule, before the optimizer's step; zeros are stored.

    What is pruned still gets its gradient, so the optimizer's moments go on; its weight is 0 after
    every step.

    Attributes:
        schedule: when masks change, and how sparse they are by then.
        drive: who changes masks: the optimizer's step, inside a `cond`; or the host, which calls
            `optimizer.refresh` before the steps that `schedule.due` names. Under `vmap` a `cond`
            runs both of its sides at every step, so there the host is the cheaper one.
    """

    schedule: Schedule
    drive: Literal["step", "host"] = "step"

    def density(self, pattern: Pattern, step: Step) -> float | Float[Array, ""]:
        """What the masks of the step before keep: new ones come after a forward pass."""
        return density(pattern, self.schedule.held(step - 1, pattern.sparsity))

    def score(
        self,
        path: str,
        weight: Array,
        grad: Array | None,
        keep: Bool[Array, "*dims"],
        step: Int[Array, ""],
    ) -> Float[Array, "*dims"]:
        """How much each weight matters; the highest stay. A host may give no gradients."""
        raise NotImplementedError

    def new_masks(
        self, grads: Any, state: SparseState, params: Any
    ) -> dict[str, Bool[Array, "*dims"]]:
        """The masks of this step."""
        weights, gradients, masks = self.selected(params), leaves_by_path(grads), {}
        for path, pattern in self.patterns(params).items():
            weight, grad = weights[path], gradients.get(path)
            keep = state.masks[path].keep(weight.shape)
            scores = self.score(path, weight, grad, keep, state.step)
            progress = self.schedule.progress(state.step, pattern.sparsity)
            masks[path] = pattern.mask(scores, self.axis, progress)
        return masks

    def refresh(
        self,
        grads: Any,
        inner_state: Any,
        state: SparseState,
        params: Any,
        inner: optax.GradientTransformation,
    ) -> tuple[Any, SparseState]:
        """New masks; the optimizer's state stays."""
        del inner
        return inner_state, self._renewed(grads, state, params)

    def _renewed(self, grads: Any, state: SparseState, params: Any) -> SparseState:
        """The state with the masks of this step."""
        return self.change(state, self.new_masks(grads, state, params))

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients as they are; new masks where the schedule has them."""
        if self.drive == "host":
            # What the host changed, it changed for this step; later steps have no flips.
            due = jnp.asarray(self.schedule.due(state.step))
            flips = {path: jnp.where(due, count, 0) for path, count in state.flips.items()}
            return grads, dataclasses.replace(state, flips=flips)
        return grads, jax.lax.cond(
            jnp.asarray(self.schedule.due(state.step)),
            lambda: self._renewed(grads, state, params),
            lambda: dataclasses.replace(state, flips=no_flips(state.masks)),
        )

    def after(
        self, updates: Any, inner: Any, state: SparseState, params: Any
    ) -> tuple[Any, Any, SparseState]:
        """Updates by which what is pruned becomes 0."""
        return zero_pruned(updates, params, state.masks), inner, state
