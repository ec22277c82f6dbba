"""Whether to fuse attention on a chip, and with which block: FLAT's exhaustive search.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, section 5; costs are those of
`gossamer.planning.attention_costs`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from gossamer.planning.attention_costs import (
    AttentionCost,
    Machine,
    fuse,
    machine,
    price,
    sequence,
)
from gossamer.planning.attention_footprints import Granularity, check_rows
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
    costs = (
        cost
        for on_chip in places
        for granularity, tile in _tiles(shape, rows, on_chip)
        for cost in _fused(unit, shape, granularity, tile, on_chip)
    )
    return min(costs, key=preference)


def best_unfused(
    chip: Chip, shape: AttentionShape, *, charge_softmax: bool = True
) -> AttentionCost:
    """The fastest mapping with L, softmax and A apart, of all, as `best_fused` has it.

    Raises:
        ValueError: the chip lacks constants.
    """
    unit = machine(chip, charge_softmax=charge_softmax)
    rows = [*_powers(shape.sequence), shape.sequence]
    costs = []
    for on_chip in (True, False):
        resident = shape.scores * shape.element_bytes if on_chip else 0

        # The steps share neither time nor buffer: each has its best whatever the other does.
        def rank(
            laid: tuple[OperatorMapping, Demand], resident: int = resident
        ) -> tuple[float, ...]:
            step = price(unit, shape, "", [laid[1]], resident)
            return step.phase.seconds, step.memory_bytes, step.footprint_bytes

        logit, attend = (
            min((laid for tile in rows for laid in lay(unit, shape, tile, on_chip)), key=rank)
            for lay in (_logits, _attends)
        )
        mapping = AttentionMapping(
            granularity="M", scores_on_chip=on_chip, logit=logit[0], attend=attend[0]
        )
        costs.append(sequence(unit, shape, mapping, logit[1], attend[1]))
    return min(costs, key=preference)


def preference(cost: AttentionCost) -> tuple[float, float, int]:
    """What is less is better: seconds, then traffic, then footprint."""
    return cost.seconds, cost.memory_bytes, cost.footprint_bytes


def _powers(sequence_length: int) -> list[int]:
    """Powers of two below a length."""
    return [2**power for power in range((sequence_length - 1).bit_length())]


def _tiles(
    shape: AttentionShape, rows: Sequence[int], on_chip: bool
) -> list[tuple[Granularity, int]]:
    """Granularities and rows; how many heads' scores stay makes no difference where none do."""
    whole: tuple[Granularity, ...] = ("H", "B", "M") if on_chip else ("H",)
    return [("R", tile) for tile in rows] + [(each, shape.sequence) for each in whole]


def _fused(
    unit: Machine, shape: AttentionShape, granularity: Granularity, tile: int, on_chip: bool
) -> Iterator[AttentionCost]:
    pairs = itertools.product(
        _logits(unit, shape, tile, on_chip), _attends(unit, shape, tile, on_chip)
    )
    for (first, logit), (second, attend) in pairs:
        mapping = AttentionMapping(
            granularity=granularity, scores_on_chip=on_chip, logit=first, attend=second
        )
        yield fuse(unit, shape, mapping, logit, attend)


def _logits(
    unit: Machine, shape: AttentionShape, rows: int, on_chip: bool
) -> list[tuple[OperatorMapping, Demand]]:
    return _laid(unit, shape, rows, on_chip, ((), ("Q",), ("K",), ("Q", "K")), logit_demand)


def _attends(
    unit: Machine, shape: AttentionShape, rows: int, on_chip: bool
) -> list[tuple[OperatorMapping, Demand]]:
    return _laid(unit, shape, rows, on_chip, ((), ("V",)), attend_demand)


def _laid(
    unit: Machine,
    shape: AttentionShape,
    rows: int,
    on_chip: bool,
    inputs: Sequence[tuple[str, ...]],
    demand: Callable[..., Demand],
) -> list[tuple[OperatorMapping, Demand]]:
    """All mappings of a product with so many rows, and what they ask for."""
    mappings = [
        OperatorMapping(rows=rows, stationarity=stationarity, on_chip=kept)
        for stationarity in STATIONARITIES
        for kept in inputs
    ]
    return [
        (laid, demand(shape, unit.array_size, laid, scores_on_chip=on_chip)) for laid in mappings
    ]
