"""Pruning-mask decay: pruned weights fade in stairs."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gossamer.sparsity.methods._dense import Gated
from gossamer.sparsity.schedules import Periodic, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskDecay(Gated):
    r"""Pruned weights are multiplied by a factor that falls at every change of masks.

    .. math:: D = \max(1 - u w, 0), \quad u = \lfloor (t - t_\text{start}) / f \rfloor,
        \quad D = 0 \text{ from } u = 16

    Attributes:
        start: the first step with masks; the model is dense before it.
        every: f, steps from one change of masks to the next.
        weight: w, what the factor loses at each; 0 is strict masks from the start.

    Source: Kao et al. 2022, arXiv 2209.07617, by its code in AQT; AQT stops counting u at 8, so a
    w below 0.125 never gets to 0 there.
    """

    start: int = 0
    every: int = 1000
    weight: float = 0.125
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"MaskDecay needs 0 <= weight <= 1, got weight={self.weight}.")
        object.__setattr__(self, "schedule", Periodic(start=self.start, every=self.every))

    def factor(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """D at this step."""
        u = (step - self.start) // self.every
        # As 1 - u w in float32 does not get to 0 at u = 10 for w = 0.1, one tenth at a time.
        value = jnp.maximum(1 - u.astype(jnp.float32) * self.weight, 0)
        value = jnp.where(value < 1e-6, 0.0, value)
        sparse = 0.0 if self.weight == 0 else jnp.where(u >= 16, 0.0, value)
        return jnp.where(step < self.start, 1.0, sparse)
