"""What SET and RigL share: some weights are dropped, as many grow elsewhere."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity.methods.method import SparseState, no_flips
from gossamer.sparsity.methods.static_random import StaticRandom
from gossamer.sparsity.patterns import NM, Pattern, Unstructured
from gossamer.sparsity.schedules import Schedule
from gossamer.sparsity.selection import count_marks, keep_highest, score_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamic(StaticRandom):
    r"""Sparse from the first step; at the steps of a schedule masks change instead of weights.

    Of every weight the fraction :math:`\frac{\alpha}{2} (1 + \cos \frac{\pi t}{T})` of what is kept
    is dropped, the smallest first, and as many places grow. They start at 0, with moments of 0;
    what was dropped may grow again at once. N:M drops over the whole weight and grows in groups.

    Attributes:
        schedule: when masks change; its `stop` is T.
        drop_fraction: what is dropped at the first update, alpha in [0, 1].
        drive: who changes masks. The host calls `optimizer.refresh` in the place of `update` at the
            steps that `schedule.due` names; that counts as a step.

    Raises:
        ValueError: the schedule never stops, or the fraction is out of its range.
    """

    schedule: Schedule
    drop_fraction: float = 0.3
    drive: Literal["step", "host"] = "step"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.schedule.stop is None:
            raise ValueError(f"{name} drops less and less until its schedule stops: set `stop`.")
        if not 0 <= self.drop_fraction <= 1:
            raise ValueError(
                f"{name} needs 0 <= drop_fraction <= 1, got drop_fraction={self.drop_fraction}."
            )

    def growth(
        self, path: str, weight: Array, grad: Array, step: Int[Array, ""]
    ) -> Float[Array, "*dims"]:
        """Where weights grow: the highest scores."""
        raise NotImplementedError

    def dropped(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The fraction that is dropped at this step.

        Source: Evci et al. 2020, arXiv 1911.11134, section 3.
        """
        assert self.schedule.stop is not None
        passed = jnp.asarray(step, jnp.float32) / max(self.schedule.stop, 1)
        return self.drop_fraction / 2 * (1 + jnp.cos(math.pi * passed))

    def skips(self, state: SparseState) -> Bool[Array, ""] | None:
        """At a step with new masks the optimizer rests, as published."""
        return jnp.asarray(self.schedule.due(state.step)) if self.drive == "step" else None

    def update(self, grads: Any, state: SparseState, params: Any) -> tuple[Any, SparseState]:
        """Gradients of what is kept."""
        grads, state = super().update(grads, state, params)
        return grads, dataclasses.replace(state, flips=no_flips(state.masks))

    def refresh(
        self,
        grads: Any,
        inner_state: Any,
        state: SparseState,
        params: Any,
        inner: optax.GradientTransformation,
    ) -> tuple[Any, SparseState]:
        """New masks, and moments of 0 where weights grew."""
        weights, gradients = self.selected(params), leaves_by_path(grads)
        masks, fraction = {}, self.dropped(state.step)
        for path, pattern in self.patterns(params).items():
            weight = weights[path]
            keep = state.masks[path].keep(weight.shape)
            left = survivors(pattern, jnp.abs(weight), keep, self.axis, fraction)
            # Below Inf, so that an Inf or NaN gradient cannot take the place of what survives.
            grown = jnp.nan_to_num(self.growth(path, weight, gradients[path], state.step))
            masks[path] = pattern.mask(jnp.where(left, jnp.inf, grown), self.axis)
        grown = {path: mask & ~state.masks[path].keep(mask.shape) for path, mask in masks.items()}
        changed = self.change(state, masks)
        if self.drive == "host":
            changed = dataclasses.replace(changed, step=optax.safe_increment(state.step))
        return reset(inner_state, grown, params, inner), changed


def survivors(
    pattern: Pattern,
    scores: Float[Array, "*dims"],
    keep: Bool[Array, "*dims"],
    axis: int,
    fraction: Float[Array, ""],
) -> Bool[Array, "*dims"]:
    """What is left of `keep` when a fraction of its lowest scores is dropped.

    Where a pattern prunes whole units, whole units are dropped.
    """
    if isinstance(pattern, NM | Unstructured):
        units, kept = scores, keep
    else:
        units = pattern.pool(scores, axis)
        kept = pattern.pool(keep.astype(scores.dtype), axis) > 0
    left = jnp.round(count_marks(kept) * (1 - fraction)).astype(jnp.int32)
    highest = keep_highest(score_bits(jnp.where(kept, units, -1)), left)
    if isinstance(pattern, NM | Unstructured):
        return highest
    return jnp.broadcast_to(pattern.spread(highest, axis), scores.shape)


def reset(
    inner_state: Any,
    grown: dict[str, Bool[Array, "*dims"]],
    params: Any,
    inner: optax.GradientTransformation,
) -> Any:
    """The optimizer's state with zeros where weights grew, in all that is shaped like weights."""
    places = replace_leaves(jax.tree.map(lambda _: jnp.zeros(0, bool), params), grown)

    def zero(leaf: Any, where: Any) -> Any:
        if getattr(leaf, "shape", None) != where.shape:
            return leaf
        return jnp.where(where, jnp.zeros((), leaf.dtype), leaf)

    is_masked = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return optax.tree_utils.tree_map_params(inner, zero, inner_state, places, is_leaf=is_masked)
