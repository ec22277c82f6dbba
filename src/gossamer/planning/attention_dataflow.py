"""Whether to fuse attention on a chip, and with which block: FLAT's exhaustive search.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, section 5; costs are those of
`gossamer.planning.attention_costs`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from gossamer.planning.attention_costs import (
    AttentionCost,
    Machine,
    Usage,
    machine,
    price_fused,
    price_steps,
    use,
)
from gossamer.planning.attention_footprints import Granularity, check_rows, score_bytes
from gossamer.planning.attention_mappings import (
    STATIONARITIES,
    AttentionMapping,
    Demand,
    OperatorMapping,
    attend_demand,
    logit_demand,
)
from gossamer.planning.attention_shapes import AttentionShape
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
        (True, 'array', 1.83)
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
    """The fastest mapping as one loop; of equal ones that with the least traffic, then footprint.

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
    unit = machine(chip, charge_softmax=charge_softmax)
    places = (True, False) if scores_on_chip is None else (scores_on_chip,)
    rows = _powers(shape.sequence) if row_tiles is None else row_tiles
    for each in rows:
        check_rows(shape, "R", each)
    return min((_best_tile(unit, shape, rows, place) for place in places), key=preference)


def best_unfused(
    chip: Chip, shape: AttentionShape, *, charge_softmax: bool = True
) -> AttentionCost:
    """The fastest mapping with L, softmax and A apart, of all, as `best_fused` has it.

    Raises:
        ValueError: the chip lacks constants.
    """
    unit = machine(chip, charge_softmax=charge_softmax)
    rows = [*_powers(shape.sequence), shape.sequence]
    return min((_best_steps(unit, shape, rows, place) for place in (True, False)), key=preference)


def _powers(sequence_length: int) -> list[int]:
    """Powers of two below a length."""
    return [2**power for power in range((sequence_length - 1).bit_length())]


def preference(cost: AttentionCost) -> tuple[float, float, float]:
    """What is less is better: seconds, then traffic, then footprint."""
    return cost.seconds, cost.memory_bytes, cost.footprint_bytes


def _best_tile(
    unit: Machine, shape: AttentionShape, rows: Sequence[int], on_chip: bool
) -> AttentionCost:
    """The best of all tiles and of all pairs of the products' mappings."""
    # How many heads' scores stay makes no difference where none do.
    whole: tuple[Granularity, ...] = ("H", "B", "M") if on_chip else ("H",)
    granularities: list[Granularity] = ["R"] * len(rows)
    tiles = [*zip(granularities, rows, strict=True), *((each, shape.sequence) for each in whole)]
    logits, attends = (
        [lay(unit, shape, tile, on_chip) for _, tile in tiles] for lay in (_logits, _attends)
    )
    resident = [score_bytes(shape, *tile) if on_chip else 0 for tile in tiles]
    usage = use(
        unit,
        shape,
        [_stack(logits, np.s_[:, :, None]), _stack(attends, np.s_[:, None, :])],
        np.array(resident, float)[:, None, None],
        softmax=True,
    )
    tile, first, second = _least(usage)
    (logit, logit_demanded), (attend, attend_demanded) = logits[tile][first], attends[tile][second]
    mapping = AttentionMapping(
        granularity=tiles[tile][0], scores_on_chip=on_chip, logit=logit, attend=attend
    )
    return price_fused(unit, shape, mapping, logit_demanded, attend_demanded)


def _best_steps(
    unit: Machine, shape: AttentionShape, rows: Sequence[int], on_chip: bool
) -> AttentionCost:
    """The best of each product: steps share neither time nor buffer, so they do not interfere."""
    resident = float(shape.scores * shape.element_bytes * on_chip)
    best = []
    for lay in (_logits, _attends):
        candidates = [lay(unit, shape, tile, on_chip) for tile in rows]
        tile, place = _least(use(unit, shape, [_stack(candidates, np.s_[:, :])], resident))
        best.append(candidates[tile][place])
    (logit, logit_demanded), (attend, attend_demanded) = best
    mapping = AttentionMapping(granularity="M", scores_on_chip=on_chip, logit=logit, attend=attend)
    return price_steps(unit, shape, mapping, logit_demanded, attend_demanded)


_Candidates: TypeAlias = list[tuple[OperatorMapping, Demand]]


def _logits(unit: Machine, shape: AttentionShape, rows: int, on_chip: bool) -> _Candidates:
    return _laid(unit, shape, rows, on_chip, ((), ("Q",), ("K",), ("Q", "K")), logit_demand)


def _attends(unit: Machine, shape: AttentionShape, rows: int, on_chip: bool) -> _Candidates:
    return _laid(unit, shape, rows, on_chip, ((), ("V",)), attend_demand)


def _laid(
    unit: Machine,
    shape: AttentionShape,
    rows: int,
    on_chip: bool,
    inputs: Sequence[tuple[str, ...]],
    demand: Callable[..., Demand],
) -> _Candidates:
    """All mappings of a product with so many rows, and what they ask for."""
    mappings = [
        OperatorMapping(rows=rows, stationarity=stationarity, on_chip=kept)
        for stationarity in STATIONARITIES
        for kept in inputs
    ]
    return [
        (laid, demand(shape, unit.array_size, laid, scores_on_chip=on_chip)) for laid in mappings
    ]


def _stack(candidates: Sequence[_Candidates], spread: tuple[slice | None, ...]) -> Demand:
    """Demands `[tile, mapping]` as arrays, with the axes of length 1 that `spread` adds."""
    return Demand(
        **{
            field.name: np.array(
                [[getattr(demand, field.name) for _, demand in each] for each in candidates], float
            )[spread]
            for field in dataclasses.fields(Demand)
        }
    )


def _least(usage: Usage) -> tuple[int, ...]:
    """Where in the arrays the best candidate is, by `preference`."""
    keys = np.broadcast_arrays(usage.footprint_bytes, usage.memory_bytes, usage.seconds)
    first = np.lexsort([key.ravel() for key in keys])[0]
    return tuple(int(place) for place in np.unravel_index(first, keys[0].shape))
