"""The cell to take within a size budget, from what was measured."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from gossamer.compression.interplay.cells import Result
from gossamer.compression.interplay.threshold import paired_difference
from gossamer.compression.interplay.verdicts import NOISE


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that a model may take.

    Attributes:
        most: the limit.
        unit: `MB` counts the whole model, 10^6 bytes, embeddings included; `bits` are those of a
            compressed kernel's weight, scales and positions included.
    """

    most: int | float
    unit: Literal["MB", "bits"]

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise ValueError(f"A size budget needs to be positive, got {self.most} {self.unit}.")

    def __str__(self) -> str:
        return f"{self.most:g} {'MB' if self.unit == 'MB' else 'bits a weight'}"

    def cost(self, result: Result) -> float:
        """What a cell takes, in the budget's unit."""
        return result.model_bytes / 1e6 if self.unit == "MB" else result.bits_per_weight


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """The cell of least perplexity within the budget, the next best, and why in words."""

    best: Result | None
    runner_up: Result | None
    words: str


def recommend(results: Sequence[Result], budget: Budget) -> Recommendation:
    """Chooses among measured cells; of two that predict alike the smaller one is better.

    Raises:
        ValueError: there are no cells.
    """
    if not results:
        raise ValueError("Nothing was measured that could be recommended.")
    fitting = sorted(
        (result for result in results if budget.cost(result) <= budget.most),
        key=lambda result: (result.perplexity, budget.cost(result)),
    )
    if not fitting:
        smallest = min(results, key=budget.cost)
        words = f"Nothing measured fits within {budget}; the smallest is {_describe(smallest)}."
        return Recommendation(None, None, words)
    best, runner_up, *_ = *fitting, None
    words = f"Within {budget}, take {_describe(best)}."
    if runner_up is None:
        return Recommendation(best, None, words + " Nothing else that was measured fits.")
    difference, error = paired_difference(runner_up.window_losses, best.window_losses)
    told = "beyond the noise" if difference > NOISE * error else "which the noise may explain"
    words += (
        f" The runner-up is {_describe(runner_up)}: {difference:.4f} nats a prediction more, "
        f"standard error {error:.4f}, {told}."
    )
    return Recommendation(best, runner_up, words)


def _describe(result: Result) -> str:
    return (
        f"{result.cell.label} (perplexity {result.perplexity:.2f}, "
        f"{result.model_bytes / 1e6:.1f} MB, {result.bits_per_weight:.2f} bits a weight)"
    )
