"""Progressive gradient flow: pruned weights fade, or the pattern tightens, step by step."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.distributions import density
from gossamer.sparsity.methods._dense import Gated
from gossamer.sparsity.methods._frames import geometric, require_nm, stepwise
from gossamer.sparsity.patterns import NM, Pattern
from gossamer.sparsity.schedules import Periodic, Schedule, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class MdGf(Gated):
    r"""Mask-decay gradient flow: pruned weights are multiplied by a factor that falls to 0.

    .. math:: \tilde W = W (\Phi + D_j (1 - \Phi)), \quad
        D_j = \max(1 - \beta j, 0) \text{ or } e^{-\beta j}, \quad j = t - t_\text{start}

    The model is dense before `start`, and strictly sparse from `stop` on, where the exponential,
    which never gets to 0, is cut. `gradient="chain"` is the paper's equation; its published code
    is `open`, with which it does no better than STE (see docs/results/nm-training.md).

    Attributes:
        start: the first step of the decay.
        stop: the first step without it; the paper advises some 70 % of the run.
        decay: the form of D.
        rate: beta; None is the one that gets to 0 at `stop`, or to e^-6 if exponential.
        every: steps from one change of masks to the next.

    Source: Bambhaniya et al. 2024, arXiv 2402.04744, section 3.
    """

    start: int = 0
    stop: int
    decay: Literal["linear", "exponential"] = "exponential"
    rate: float | None = None
    every: int = 1
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.stop <= self.start:
            raise ValueError(
                f"MdGf decays from start to stop, got start={self.start}, stop={self.stop}."
            )
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"MdGf needs rate > 0, got rate={self.rate}.")
        object.__setattr__(self, "schedule", Periodic(start=self.start, every=self.every))

    def factor(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """D at this step."""
        passed = jnp.asarray(step - self.start, jnp.float32)
        whole = 6.0 if self.decay == "exponential" else 1.0
        rate = whole / (self.stop - self.start) if self.rate is None else self.rate
        if self.decay == "exponential":
            value = jnp.exp(-rate * passed)
        else:
            value = jnp.maximum(1 - rate * passed, 0)
        return jnp.where(step < self.start, 1.0, jnp.where(step >= self.stop, 0.0, value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdGf(Gated):
    """Structure-decay gradient flow: strict masks of a pattern that tightens frame by frame.

    Frames are equally long. Stepwise keeps the group: M-1:M, then M/2:M, M/4:M, ... N:M; geometric
    keeps the ratio: 16N:16M, 8N:8M, ... N:M. The model is dense before `start` and in its last
    frame, the recipe's pattern, from `stop` on.

    Attributes:
        start: the first step of the first frame.
        stop: the first step of the last.
        frames: which patterns come on the way.
        largest: the k of the geometric frame kN:kM that comes first.
        every: steps from one change of masks to the next.

    Raises:
        ValueError: when it is initialised, for a pattern that is not N:M, or a k M that does not
            divide a weight's axis.

    Source: Bambhaniya et al. 2024, arXiv 2402.04744, section 3.
    """

    start: int = 0
    stop: int
    frames: Literal["stepwise", "geometric"] = "stepwise"
    largest: int = 16
    every: int = 1
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.stop <= self.start:
            raise ValueError(
                f"SdGf tightens from start to stop, got start={self.start}, stop={self.stop}."
            )
        if self.largest < 2 or self.largest & (self.largest - 1):
            raise ValueError(f"SdGf needs a power of two, got largest={self.largest}.")
        # With its stop, so that the last frame begins there whether the period divides it or not.
        schedule = Periodic(start=self.start, stop=self.stop, every=self.every)
        object.__setattr__(self, "schedule", schedule)

    def density(self, pattern: Pattern, step: Step) -> Float[Array, ""]:
        """That of the frame; geometric frames have the density of the last."""
        frames = self._frames(require_nm(self, "a weight", pattern))
        kept = jnp.asarray([density(frame) for frame in frames])
        last = self.schedule.last(step)
        return jnp.where(last < 0, 1.0, kept[self._frame(frames, last)])

    def settled(self, pattern: Pattern, step: Step) -> bool:
        """In the last frame: geometric ones before it are as dense, and coarser."""
        del pattern
        return bool(step >= self.stop)

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """The masks of the first frame, if it starts at once."""
        for path, pattern in self.patterns(params).items():
            length = self.selected(params)[path].shape[self.axis]
            for frame in self._frames(require_nm(self, path, pattern)):
                if length % frame.m:
                    raise ValueError(
                        f"SdGf's frame {frame} does not divide axis {self.axis} of {path}, which "
                        f"has {length}: a smaller `largest` than {self.largest} may, or "
                        "frames='stepwise'."
                    )
        return super().first_masks(params)

    def new_mask(
        self, path: str, weight: Array, pattern: Pattern, step: Int[Array, ""]
    ) -> Bool[Array, "*dims"]:
        """The mask of the frame that this step is in."""
        frames = self._frames(require_nm(self, path, pattern))
        frame = self._frame(frames, step)
        scores = jnp.abs(weight)
        if self.frames == "geometric":
            masks = [lambda each=each: each.mask(scores, self.axis) for each in frames]
            return jax.lax.switch(frame, masks)
        kept = jnp.asarray([each.n for each in frames])[frame]
        loosest = NM(1, frames[-1].m)
        return loosest.mask(scores, self.axis, (loosest.m - kept) / (loosest.m - 1))

    def _frame(self, frames: list[NM], step: Int[Array, ""]) -> Int[Array, ""]:
        """The number of the frame that a step is in."""
        before = len(frames) - 1
        passed = (step - self.start) * before // (self.stop - self.start)
        return jnp.where(step >= self.stop, before, jnp.clip(passed, 0, max(before - 1, 0)))

    def _frames(self, pattern: NM) -> list[NM]:
        if self.frames == "stepwise":
            return stepwise(pattern)
        return geometric(pattern, self.largest)
