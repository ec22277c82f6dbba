"""Fronts of several searches beside each other: of dense, narrow and sparse weights."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gossamer import plots
from gossamer.planning.pareto import pareto
from gossamer.planning.serve_search import ServePlan


def best_of(fronts: Iterable[Sequence[ServePlan]]) -> tuple[ServePlan, ...]:
    """The front of several fronts together, the fastest first.

    Args:
        fronts: such as `ServeSearch.front` of searches with other weights.
    """
    plans = [plan for front in fronts for plan in front]
    seconds = np.array([plan.cost.seconds for plan in plans], np.float64)
    cost = np.array([plan.cost.chip_ms_per_token for plan in plans], np.float64)
    return tuple(plans[place] for place in pareto(seconds, cost))


def cheapest_within(front: Sequence[ServePlan], seconds: float) -> ServePlan | None:
    """The plan with the fewest chip-milliseconds a token that takes at most so long; None: none.

    Chip-milliseconds a token are the chips that 1,000 tokens a second need.
    """
    quick = [plan for plan in front if plan.cost.seconds <= seconds]
    return min(quick, key=lambda plan: plan.cost.chip_ms_per_token, default=None)


def serving_plot(fronts: Mapping[str, Sequence[ServePlan]], *, title: str) -> bytes:
    """Draws fronts of latency against chip-milliseconds a token, a line a name, as PNG bytes."""
    lines = {
        name: [(1e3 * float(p.cost.seconds), float(p.cost.chip_ms_per_token)) for p in front]
        for name, front in fronts.items()
    }
    return plots.line_plot(
        lines,
        x="latency, ms",
        y="chip-ms a token",
        title=title,
        log_x=True,
        log_y=True,
    )
