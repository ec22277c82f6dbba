"""Which chip has which part of which embedding table: a search for even loads.

A step is as slow as its busiest chip, whose seconds are the longer of its memory's and its links'.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from gossamer import plots
from gossamer.planning.embedding_costs import EmbeddingCost, EmbeddingSetting, shard_costs
from gossamer.planning.embedding_search import Option, Search
from gossamer.planning.embeddings import (
    REPLICATED,
    EmbeddingModel,
    Sharding,
    Table,
    check_sharding,
)

_FEWEST_COLUMNS = 8  # of a part of a row: a SparseCore adds 8 elements at a time (Jouppi 2023)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where all tables are, and what that costs.

    Attributes:
        shardings: of each table, by name.
        chips: of each table's shards, in their order; empty for a replicated table.
        chip_bytes: that each chip has of all tables.
        chip_gather_seconds: of each chip's memory in a step.
        chip_exchange_seconds: of each chip's links in a step, all-reduces included.
        cost: of a step.
    """

    shardings: Mapping[str, Sharding]
    chips: Mapping[str, Int64[np.ndarray, " shards"]]
    chip_bytes: Float64[np.ndarray, " chips"]
    chip_gather_seconds: Float64[np.ndarray, " chips"]
    chip_exchange_seconds: Float64[np.ndarray, " chips"]
    cost: EmbeddingCost

    @property
    def limit(self) -> Literal["memory", "links"]:
        """What takes longer on the busiest chip."""
        memory, links = self.chip_gather_seconds, self.chip_exchange_seconds
        busiest = int(np.maximum(memory, links).argmax())
        return "memory" if memory[busiest] >= links[busiest] else "links"

    @property
    def imbalance(self) -> float:
        """Seconds of the busiest chip over the mean of all; 1 is even."""
        seconds = np.maximum(self.chip_gather_seconds, self.chip_exchange_seconds)
        mean = float(seconds.mean())
        return float(seconds.max()) / mean if mean else 1.0


def possible_shardings(table: Table, chips: int) -> list[Sharding]:
    """The ways to split a table that a search tries.

    Whole; in 2, 4 or 8 columns that are 8 elements or wider; its rows over all chips, or over
    groups of 4, 16, 64, ... of them; both together; replicated. Rows over all chips are added up by
    those that have them or by those that ask; in groups, by those that have them.
    """
    groups = [4**power for power in range(1, 1 + int(math.log(chips, 4))) if 4**power < chips]
    columns = [1, *(c for c in (2, 4, 8) if table.width / c >= _FEWEST_COLUMNS)]
    found = [Sharding(rows=r, columns=c) for r in (1, *groups, chips) for c in columns]
    if chips > 1:
        found.append(Sharding(rows=chips, pooled="requester"))
    found.append(REPLICATED)
    return [each for each in dict.fromkeys(found) if _fits(table, each, chips)]


def alike_shardings(model: EmbeddingModel, chips: int) -> dict[str, dict[str, Sharding]]:
    """All tables split alike, for comparison with a placement.

    Returns:
        Of each way, the sharding of each table: `rows` over all chips, or as many as there are;
        `columns`, as many of 8, 4, 2 and 1 as chips and 8 elements in each allow; `tables` whole.
    """
    ways: dict[str, dict[str, Sharding]] = {"rows": {}, "columns": {}, "tables": {}}
    for table in model.tables:
        columns = max(each.columns for each in possible_shardings(table, chips))
        ways["rows"][table.name] = Sharding(rows=min(chips, table.rows))
        ways["columns"][table.name] = Sharding(columns=columns)
        ways["tables"][table.name] = Sharding()
    return ways


def place_tables(
    model: EmbeddingModel,
    setting: EmbeddingSetting,
    *,
    dense_seconds: float = 0.0,
    table_bytes: float | None = None,
    shardings: Mapping[str, Sequence[Sharding]] | None = None,
) -> Placement:
    """Splits tables and places the parts, so that the busiest chip has little to do.

    Args:
        model: whose tables are placed.
        setting: chips and samples.
        dense_seconds: of everything that is no embedding.
        table_bytes: of each chip, for tables; None takes the chip's memory.
        shardings: that are allowed, by a table's name; None, and tables that it does not name, take
            `possible_shardings`.

    Returns:
        The best placement found: of few tables, for which all placements can be tried, within a
        few percent of the best.

    Raises:
        ValueError: the tables do not fit, by how much, and what would do; or a sharding is not
            possible, or of no table.
    """
    limit = setting.chip.memory_bytes if table_bytes is None else table_bytes
    if not limit > 0:
        raise ValueError(f"table_bytes needs to be positive, got {limit}.")
    options = _options(model, setting, shardings or {})
    _check_memory(model, setting.chips, limit)
    search = Search(model.tables, options, chips=setting.chips, limit=limit)
    search.run()
    return _placement(search, dense_seconds)


def placement_plot(placement: Placement, *, title: str) -> bytes:
    """Draws the milliseconds of each chip's memory and links, the busiest chip first, as a PNG."""
    memory, links = placement.chip_gather_seconds, placement.chip_exchange_seconds
    order = np.argsort(-np.maximum(memory, links), kind="stable")
    lines = {
        name: [(float(place), 1e3 * float(seconds[chip])) for place, chip in enumerate(order)]
        for name, seconds in (("memory", memory), ("links", links))
    }
    if dense := placement.cost.dense_seconds:
        lines["dense part"] = [(0.0, 1e3 * dense), (float(len(order) - 1), 1e3 * dense)]
    return plots.line_plot(lines, x="chips, the busiest first", y="ms", title=title)


def _placement(search: Search, dense_seconds: float) -> Placement:
    cost = EmbeddingCost(
        gather_seconds=float(search.gather.max()),
        exchange_seconds=float(search.exchange.max()),
        sparse_seconds=float(np.maximum(search.gather, search.exchange).max()),
        dense_seconds=dense_seconds,
    )
    return Placement(
        shardings={name: search.places[name].option.sharding for name in search.tables},
        chips={name: search.places[name].chips for name in search.tables},
        chip_bytes=search.bytes,
        chip_gather_seconds=search.gather,
        chip_exchange_seconds=search.exchange,
        cost=cost,
    )


def _options(
    model: EmbeddingModel, setting: EmbeddingSetting, allowed: Mapping[str, Sequence[Sharding]]
) -> dict[str, list[Option]]:
    names = [table.name for table in model.tables]
    if unknown := sorted(set(allowed) - set(names)):
        raise ValueError(f"Shardings are given for {unknown}, which are not among {names}.")
    found = {}
    for table in model.tables:
        choices = allowed.get(table.name)
        if choices is None:
            choices = possible_shardings(table, setting.chips)
        if not choices:
            raise ValueError(f"No sharding of table {table.name!r} is allowed; allow one or more.")
        features = model.features_of(table)
        costs = [(each, shard_costs(table, features, each, setting)) for each in choices]
        found[table.name] = [Option(each, shards, setting.chips) for each, shards in costs]
    return found


def _check_memory(model: EmbeddingModel, chips: int, limit: float) -> None:
    needed, there = model.nbytes, chips * limit
    if needed <= there:
        return
    share = there / needed
    raise ValueError(
        f"The tables take {needed:.0f} bytes and {chips} chips have {there:.0f} for them: "
        f"{needed - there:.0f} too many. {math.ceil(needed / limit)} chips would hold them, or "
        f"elements with their optimizer's bytes of {100 * share:.3g} % of the size."
    )


def _fits(table: Table, sharding: Sharding, chips: int) -> bool:
    try:
        check_sharding(table, sharding, chips)
    except ValueError:
        return False
    return True
