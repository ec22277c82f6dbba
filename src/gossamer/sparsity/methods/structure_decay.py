"""Sparse-structure decay: the pattern tightens at every change of masks."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.methods._dense import Gated
from gossamer.sparsity.methods._frames import quartering, require_nm, stepwise
from gossamer.sparsity.patterns import NM, Pattern
from gossamer.sparsity.schedules import Periodic, Schedule, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureDecay(Gated):
    """Strict masks of a pattern that tightens every `every` steps, and stay in between.

    Attributes:
        start: the first step with masks; the model is dense before it.
        every: steps from one frame to the next.
        frames: `paper` is M-1:M, M/2:M, M/4:M, ...; `aqt` is the order of the code, M:M, M-1:M,
            M/4:M, M/8:M, .... Both end at N:M.

    Source: Kao et al. 2022, arXiv 2209.07617, and its code in AQT.
    """

    start: int = 0
    every: int = 1000
    frames: Literal["paper", "aqt"] = "paper"
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", Periodic(start=self.start, every=self.every))

    def density(self, pattern: Pattern, step: Step) -> Float[Array, ""]:
        """That of the frame."""
        target = require_nm(self, "a weight", pattern)
        kept = self._kept(target, jnp.asarray(step)) / target.m
        return jnp.where(step < self.start, 1.0, kept)

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """The masks of the first frame, if it starts at once."""
        for path, pattern in self.patterns(params).items():
            require_nm(self, path, pattern)
        return super().first_masks(params)

    def new_mask(
        self, path: str, weight: Array, pattern: Pattern, step: Int[Array, ""]
    ) -> Bool[Array, "*dims"]:
        """The mask of the frame that this step begins."""
        target = require_nm(self, path, pattern)
        kept = self._kept(target, step)
        loosest = NM(1, target.m)
        return loosest.mask(jnp.abs(weight), self.axis, (target.m - kept) / (target.m - 1))

    def _kept(self, target: NM, step: Int[Array, ""]) -> Int[Array, ""]:
        """How many of each group the frame of a step keeps."""
        frames = stepwise(target) if self.frames == "paper" else quartering(target)
        frame = jnp.clip((step - self.start) // self.every, 0, len(frames) - 1)
        return jnp.asarray([each.n for each in frames])[frame]
