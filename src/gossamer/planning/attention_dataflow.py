"""Whether to fuse attention on a chip, and with which block: FLAT's exhaustive search.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, section 5; costs are those of
`gossamer.planning.attention_costs`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from gossamer.planning.attention_costs import AttentionCost, fused_cost, unfused_cost
from gossamer.planning.attention_demands import Demand, attend_demand, logit_demand
from gossamer.planning.attention_footprints import Granularity, check_rows, score_bytes
from gossamer.planning.attention_mappings import (
    STATIONARITIES,
    AttentionMapping,
    OperatorMapping,
    Stationarity,
)
from gossamer.planning.attention_shapes import AttentionShape
from gossamer.planning.attention_usage import Machine, Usage, machine, use
from gossamer.planning.chips import Chip


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """The best that a chip can do with one layer's attention.

    Attributes:
        fused: one loop, with scores that never leave the chip but for what spills.
        staged: one loop, with scores that go to memory and come back: FLAT's choice where the
            buffer is too small to fuse.
        unfused: L, softmax and A, each run to its end.
    """

    fused: AttentionCost
    staged: AttentionCost
    unfused: AttentionCost

    @property
    def fuse(self) -> bool:
        """Whether fusing is fastest, or as fast as the others with less traffic."""
        return self.best is self.fused

    @property
    def best(self) -> AttentionCost:
        """The cheapest of the three."""
        return min((self.fused, self.staged, self.unfused), key=preference)

    @property
    def block_q(self) -> int | None:
        """Rows of queries of a fused tile; None where fusing does not pay."""
        return self.fused.mapping.logit.rows if self.fuse else None

    @property
    def speedup(self) -> float:
        """Seconds of the unfused steps over those of the best."""
        return self.unfused.seconds / self.best.seconds


def plan_attention(
    chip: Chip,
    shape: AttentionShape,
    *,
    charge_softmax: bool = True,
    row_tiles: Sequence[int] | None = None,
) -> AttentionPlan:
    """Answers whether to fuse attention on a chip, and with which block.

    Args:
        chip: with `array_size` and `on_chip_bytes`, and for softmax `clock_hz` and `vector_lanes`.
        shape: sizes.
        charge_softmax: whether softmax takes time and traffic; FLAT's own figures have it free.
        row_tiles: blocks of queries to choose among, such as those a kernel takes; None is every
            power of two below N. The whole sequence is always tried.

    Raises:
        ValueError: the chip lacks constants, or a block is larger than the sequence.

    Example:
        >>> from gossamer.planning import find_chip
        >>> shape = AttentionShape(batch=64, sequence=4096, heads=12, head_dim=64)
        >>> plan = plan_attention(find_chip("flat-cloud"), shape, charge_softmax=False)
        >>> plan.fuse, plan.best.limit, round(plan.speedup, 2)
        (True, 'array', 1.85)
    """
    search = {"charge_softmax": charge_softmax, "row_tiles": row_tiles}
    return AttentionPlan(
        fused=best_fused(chip, shape, scores_on_chip=True, **search),
        staged=best_fused(chip, shape, scores_on_chip=False, **search),
        unfused=best_unfused(chip, shape, charge_softmax=charge_softmax),
    )


def best_fused(
    chip: Chip,
    shape: AttentionShape,
    *,
    charge_softmax: bool = True,
    scores_on_chip: bool | None = None,
    row_tiles: Sequence[int] | None = None,
) -> AttentionCost:
    """The fastest mapping as one loop; of equal ones that with the least traffic.

    Where that is equal too, the one whose array is busy for the shortest time, then the smallest
    footprint.

    All are tried: granularities, row tiles, both products' stationarities, inputs on the chip.

    Args:
        chip: as `plan_attention` takes it.
        shape: sizes.
        charge_softmax: whether softmax takes time and traffic.
        scores_on_chip: whether the scores stay there; None tries both.
        row_tiles: of granularity R; None tries all powers of two below N. What FLAT's code found
            has 1, 2 and 4 times the array's rows.

    Raises:
        ValueError: the chip lacks constants, or a row tile is larger than the sequence.
    """
    places = (True, False) if scores_on_chip is None else (scores_on_chip,)
    rows = _powers(shape.sequence) if row_tiles is None else row_tiles
    for each in rows:
        check_rows(shape, "R", each)
    costs = (
        fused_cost(
            chip,
            shape,
            _best_tile(machine(chip, charge_softmax=charge_softmax), shape, rows, place),
            charge_softmax=charge_softmax,
        )
        for place in places
    )
    return min(costs, key=preference)


def best_unfused(
    chip: Chip, shape: AttentionShape, *, charge_softmax: bool = True
) -> AttentionCost:
    """The fastest mapping with L, softmax and A apart, of all, as `best_fused` has it.

    Raises:
        ValueError: the chip lacks constants.
    """
    rows = [*_powers(shape.sequence), shape.sequence]
    costs = (
        unfused_cost(
            chip,
            shape,
            _best_steps(machine(chip, charge_softmax=charge_softmax), shape, rows, place),
            charge_softmax=charge_softmax,
        )
        for place in (True, False)
    )
    return min(costs, key=preference)


def preference(cost: AttentionCost) -> tuple[float, float, float, float]:
    """What is less is better: seconds, traffic, seconds of the array, footprint."""
    return cost.seconds, cost.memory_bytes, cost.array_seconds, cost.footprint_bytes


def _powers(sequence: int) -> list[int]:
    """Powers of two below a length."""
    return [2**power for power in range((sequence - 1).bit_length())]


_Choice: TypeAlias = tuple[Stationarity, tuple[str, ...]]
_LOGITS: tuple[_Choice, ...] = tuple(
    itertools.product(STATIONARITIES, ((), ("Q",), ("K",), ("Q", "K")))
)
_ATTENDS: tuple[_Choice, ...] = tuple(itertools.product(STATIONARITIES, ((), ("V",))))


def _best_tile(
    unit: Machine, shape: AttentionShape, rows: Sequence[int], on_chip: bool
) -> AttentionMapping:
    """The best of all tiles and of all pairs of the products' mappings."""
    # How many heads' scores stay makes no difference where none do.
    whole: tuple[Granularity, ...] = ("H", "B", "M") if on_chip else ("H",)
    granularities: list[Granularity] = ["R"] * len(rows)
    tiles = [*zip(granularities, rows, strict=True), *((each, shape.sequence) for each in whole)]
    resident = [score_bytes(shape, *tile) if on_chip else 0 for tile in tiles]
    tiled = [tile for _, tile in tiles]
    usage = use(
        unit,
        shape,
        [
            _demands(unit, shape, logit_demand, tiled, _LOGITS, on_chip, np.s_[:, :, None]),
            _demands(unit, shape, attend_demand, tiled, _ATTENDS, on_chip, np.s_[:, None, :]),
        ],
        np.array(resident, float)[:, None, None],
        softmax=True,
    )
    tile, logit, attend = _least(usage)
    return AttentionMapping(
        granularity=tiles[tile][0],
        scores_on_chip=on_chip,
        logit=_mapping(tiled[tile], _LOGITS[logit]),
        attend=_mapping(tiled[tile], _ATTENDS[attend]),
    )


def _best_steps(
    unit: Machine, shape: AttentionShape, rows: Sequence[int], on_chip: bool
) -> AttentionMapping:
    """The best of each product: steps share neither time nor buffer, so they do not interfere."""
    resident = shape.scores * shape.element_bytes if on_chip else 0
    best = []
    for demand, choices in ((logit_demand, _LOGITS), (attend_demand, _ATTENDS)):
        demanded = _demands(unit, shape, demand, rows, choices, on_chip, np.s_[:, :])
        tile, place = _least(use(unit, shape, [demanded], resident))
        best.append(_mapping(rows[tile], choices[place]))
    return AttentionMapping(granularity="M", scores_on_chip=on_chip, logit=best[0], attend=best[1])


def _mapping(rows: int, choice: _Choice) -> OperatorMapping:
    return OperatorMapping(rows=rows, stationarity=choice[0], on_chip=choice[1])


def _demands(
    unit: Machine,
    shape: AttentionShape,
    demand: Callable[..., Demand],
    rows: Sequence[int],
    choices: Sequence[_Choice],
    on_chip: bool,
    spread: tuple[slice | None, ...],
) -> Demand:
    """Of all tiles and choices `[tile, choice]`, with the axes of length 1 that `spread` adds."""
    tiles = np.array(rows, float)  # whose products do not overflow
    found = [
        demand(shape, unit.array_size, tiles, *choice, scores_on_chip=on_chip) for choice in choices
    ]
    return Demand(
        **{
            field.name: np.stack(
                [np.broadcast_to(getattr(each, field.name), tiles.shape) for each in found], axis=1
            )[spread]
            for field in dataclasses.fields(Demand)
        }
    )


def _least(usage: Usage) -> tuple[int, ...]:
    """Where in the arrays the best candidate is, by `preference`."""
    keys = np.broadcast_arrays(
        usage.footprint_bytes, usage.array, usage.memory_bytes, usage.seconds
    )
    first = np.lexsort([key.ravel() for key in keys])[0]
    return tuple(int(place) for place in np.unravel_index(first, keys[0].shape))
