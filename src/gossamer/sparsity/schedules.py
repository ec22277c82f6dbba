"""Schedules: at which steps masks change, and how sparse they are by then.

A schedule is a value; a step may be a Python number on the host or traced inside a compiled step.
Updates fall on `start`, every `every` steps after it, and always on `stop`, where the target is
reached: a window that its period does not divide still ends at the target.
"""

import dataclasses
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Step: TypeAlias = int | Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """What all schedules share: the window of steps with updates.

    Attributes:
        start: the step of the first update.
        stop: the step of the last; None never ends.
        every: steps from one update to the next.

    Raises:
        ValueError: the window ends before it begins, or the period is below 1.
    """

    start: int = 0
    stop: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.start < 0:
            raise ValueError(f"{name} needs a start of 0 or later, got start={self.start}.")
        if self.every < 1:
            raise ValueError(f"{name} needs every >= 1, got every={self.every}.")
        if self.stop is not None and self.stop < self.start:
            raise ValueError(
                f"{name} would end before it starts: start={self.start}, stop={self.stop}."
            )

    def due(self, step: Step) -> Bool[Array, ""] | bool:
        """Whether masks change at this step."""
        periodic = (step >= self.start) & ((step - self.start) % self.every == 0)
        if self.stop is None:
            return periodic
        return (periodic & (step <= self.stop)) | (step == self.stop)

    def last(self, step: Step) -> Int[Array, ""]:
        """The latest step with an update up to this one; -1 before the first."""
        latest = jnp.asarray(step - (step - self.start) % self.every)
        if self.stop is not None:
            latest = jnp.where(step >= self.stop, self.stop, latest)
        return jnp.where(step < self.start, -1, latest)

    def sparsity(self, step: Step, final: float) -> Float[Array, ""]:
        """The fraction of zeros asked for at this step, of `final` in the end."""
        raise NotImplementedError

    def progress(self, step: Step, final: float) -> Float[Array, ""]:
        """The share of `final`, in [0, 1], and exactly 1 at the end."""
        if final == 0:
            return jnp.ones(())
        share = self.sparsity(step, final) / final
        if self.stop is None:
            return share
        return jnp.where(step >= self.stop, 1.0, share)

    def held(self, step: Step, final: float) -> Float[Array, ""]:
        """The share of `final` that the latest update asked for; 0 before the first."""
        last = self.last(step)
        return jnp.where(last < 0, 0.0, self.progress(last, final))

    def _elapsed(self, step: Step) -> Float[Array, ""]:
        """The share of the window that is over, u in [0, 1]."""
        assert self.stop is not None
        length = max(self.stop - self.start, 1)
        # The difference first: float32 has whole numbers to 2^24 only.
        passed = jnp.asarray(step - self.start, jnp.float32)
        return jnp.where(step >= self.stop, 1.0, jnp.clip(passed / length, 0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Periodic(Schedule):
    """The whole target at every update.

    Example:
        >>> print(*(step for step in range(20) if Periodic(start=5, every=6).due(step)))
        5 11 17
    """

    def sparsity(self, step: Step, final: float) -> Float[Array, ""]:
        """`final`, always."""
        return jnp.asarray(final, jnp.float32)


ALWAYS = Periodic()
"""The whole target at every step."""


def once(step: int) -> Periodic:
    """One update, at this step.

    Example:
        >>> print(*(step for step in range(20) if once(7).due(step)))
        7
    """
    return Periodic(start=step, stop=step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ramp(Schedule):
    """A schedule that climbs from `initial` to the target; it must have an end."""

    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.stop is None:
            raise ValueError(f"{name} climbs to its target at `stop`, which is missing.")
        if not 0 <= self.initial < 1:
            raise ValueError(f"{name} needs 0 <= initial < 1, got initial={self.initial}.")

    def _climb(self, u: Float[Array, ""]) -> Float[Array, ""]:
        """How much of the way is done when the share `u` of the time is over."""
        raise NotImplementedError

    def sparsity(self, step: Step, final: float) -> Float[Array, ""]:
        """`initial` before the window, `final` from its end on."""
        return self.initial + (final - self.initial) * self._climb(self._elapsed(step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cubic(_Ramp):
    r"""Climbs fast at first and flattens towards the end.

    .. math:: s = s_f + (s_i - s_f) (1 - u)^3, \quad u = (t - t_0) / (t_1 - t_0)

    Example:
        >>> print(Cubic(start=0, stop=100).sparsity(50, 0.5))
        0.4375

    Source: Zhu and Gupta 2017, arXiv 1710.01878, eq. 1. JaxPruner is one step ahead: it has t + 1.
    """

    def _climb(self, u: Float[Array, ""]) -> Float[Array, ""]:
        return 1 - (1 - u) ** 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(_Ramp):
    """The same number of weights at every update.

    Example:
        >>> print(Linear(start=0, stop=100).sparsity(25, 0.5))
        0.125
    """

    def _climb(self, u: Float[Array, ""]) -> Float[Array, ""]:
        return u


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(_Ramp):
    r"""The same share of what is left at every update: the density falls geometrically.

    .. math:: 1 - s = (1 - s_i) \left(\frac{1 - s_f}{1 - s_i}\right)^u

    Example:
        >>> print(Exponential(start=0, stop=100).sparsity(50, 0.75))
        0.5
    """

    def sparsity(self, step: Step, final: float) -> Float[Array, ""]:
        """`initial` before the window, `final` from its end on."""
        left = 1 - self.initial
        return 1 - left * ((1 - final) / left) ** self._elapsed(step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staircase(_Ramp):
    """`stairs` equal jumps, as far apart as can be: the first at `start`, the last at `stop`.

    Example:
        >>> stairs = Staircase(start=0, stop=90, stairs=4)
        >>> print(*(round(float(stairs.sparsity(step, 0.8)), 6) for step in (0, 29, 30, 60, 90)))
        0.2 0.2 0.4 0.6 0.8
    """

    stairs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stairs < 2:
            raise ValueError(
                f"Staircase needs a first and a last stair, got stairs={self.stairs}; for a single "
                "one there is once(step)."
            )
        if self.every != 1:
            raise ValueError(
                f"Staircase updates when a stair begins, so every={self.every} has no meaning."
            )

    def due(self, step: Step) -> Bool[Array, ""] | bool:
        """Whether this is the first step of a stair."""
        inside = (step >= self.start) & (step <= self.stop)  # pyright: ignore[reportOperatorIssue]
        return inside & ((step == self.start) | (self._stair(step) != self._stair(step - 1)))

    def last(self, step: Step) -> Int[Array, ""]:
        """The first step of this stair; -1 before the first stair."""
        assert self.stop is not None
        stair = jnp.clip(jnp.asarray(self._stair(step)), 0, self.stairs - 1)
        length, gaps = max(self.stop - self.start, 1), self.stairs - 1
        return jnp.where(step < self.start, -1, self.start - (-stair * length) // gaps)

    def _stair(self, step: Step) -> Step:
        """Which stair, from 0; in whole numbers, so that `due` and `sparsity` agree."""
        assert self.stop is not None
        return (step - self.start) * (self.stairs - 1) // max(self.stop - self.start, 1)

    def sparsity(self, step: Step, final: float) -> Float[Array, ""]:
        """`initial` before the window, `final` from its end on."""
        climbed = (jnp.clip(jnp.asarray(self._stair(step)), -1, self.stairs - 1) + 1) / self.stairs
        return self.initial + (final - self.initial) * jnp.where(step < self.start, 0, climbed)
