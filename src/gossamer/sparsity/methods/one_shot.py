"""One-shot magnitude pruning: the whole target at one step."""

import dataclasses

from gossamer.sparsity.methods.gradual_magnitude import GradualMagnitude
from gossamer.sparsity.schedules import Schedule, once


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneShot(GradualMagnitude):
    """Prunes by magnitude at the step `at`, and never again.

    Attributes:
        at: the step, counted from 0; the optimizer's step there runs already with the masks.
    """

    at: int = 0
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", once(self.at))
