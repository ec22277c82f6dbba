"""Which chip has which part of which embedding table: a search for even loads.

First every table takes the chips that are least busy, the most expensive tables first; then tables
of the busiest chip are split in another way, moved, or swapped with others, while that helps. A
step is as slow as its busiest chip, whose seconds are the longer of its memory's and its links'.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from gossamer.planning.embedding_costs import (
    EmbeddingCost,
    EmbeddingSetting,
    Shards,
    shard_costs,
)
from gossamer.planning.embeddings import (
    REPLICATED,
    EmbeddingModel,
    Sharding,
    Table,
    check_sharding,
)

_FEWEST_COLUMNS = 8  # of a part of a row: a SparseCore adds 8 elements at a time (Jouppi 2023)
_THRESHOLDS = 24  # first placements, from coarse parts to fine ones
_STARTS = 3  # of them that are improved
_ROUNDS = 20  # of improvements over all tables; searches of 150 tables end after some 5


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
        A placement that neither moving a table of the busiest chip, nor swapping it with another,
        nor splitting it otherwise makes better.

    Raises:
        ValueError: the tables do not fit, by how much, and what would do; or a sharding is not
            possible, or of no table.
    """
    limit = setting.chip.memory_bytes if table_bytes is None else table_bytes
    if not limit > 0:
        raise ValueError(f"table_bytes needs to be positive, got {limit}.")
    options = _options(model, setting, shardings or {})
    _check_memory(model, setting.chips, limit)
    search = _Search(model, setting.chips, limit, options)
    search.run()
    return search.placement(dense_seconds)


@dataclasses.dataclass(frozen=True)
class _Option:
    """A sharding with its costs; shards in the order in which they are placed."""

    sharding: Sharding
    shards: Shards
    order: Int64[np.ndarray, " shards"]
    chips: int

    @functools.cached_property
    def total(self) -> float:
        """Seconds of all chips together, the slower of memory and links."""
        gather, exchange = self.shards.gather_seconds.sum(), self.shards.exchange_seconds.sum()
        if self.sharding.replicated:
            return self.chips * float(max(gather, self.shards.reduce_seconds))
        return float(max(gather, exchange))

    @functools.cached_property
    def largest(self) -> float:
        """Seconds of the part that takes longest."""
        parts = np.maximum(self.shards.gather_seconds, self.shards.exchange_seconds)
        return max(float(parts.max()), self.shards.reduce_seconds)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A table that has been placed: its option and the chip of each shard."""

    option: _Option
    chips: Int64[np.ndarray, " shards"]


class _Search:
    """The chips as they fill."""

    def __init__(
        self,
        model: EmbeddingModel,
        chips: int,
        limit: float,
        options: Mapping[str, Sequence[_Option]],
    ) -> None:
        self.tables = {table.name: table for table in model.tables}
        self.options = options
        self.limit = limit
        self.places: dict[str, _Place] = {}
        # Bytes, seconds of memory, seconds of links; what all chips have alike is in every one.
        self.bytes, self.gather, self.exchange = np.zeros((3, chips))

    def run(self) -> None:
        """Places all tables in several ways, and improves the best of them."""
        found: list[tuple[tuple[float, float], dict[str, _Place]]] = []
        failure = ""
        for most, by_bytes in itertools.product(self._thresholds(), (False, True)):
            failure = self._fill(most, by_bytes=by_bytes)
            if not failure:
                found.append((self._score(), dict(self.places)))
        if not found:
            raise ValueError(failure)
        improved = []
        for _, places in sorted(found, key=lambda each: each[0])[:_STARTS]:
            self._restore(places)
            self._improve()
            improved.append((self._score(), dict(self.places)))
        self._restore(min(improved, key=lambda each: each[0])[1])

    def placement(self, dense_seconds: float) -> Placement:
        """What has been found."""
        cost = EmbeddingCost(
            gather_seconds=float(self.gather.max()),
            exchange_seconds=float(self.exchange.max()),
            sparse_seconds=self._score()[0],
            dense_seconds=dense_seconds,
        )
        return Placement(
            shardings={name: self.places[name].option.sharding for name in self.tables},
            chips={name: self.places[name].chips for name in self.tables},
            chip_bytes=self.bytes.copy(),
            chip_gather_seconds=self.gather.copy(),
            chip_exchange_seconds=self.exchange.copy(),
            cost=cost,
        )

    def _thresholds(self) -> list[float]:
        """Seconds that one part may take: from the least that can be to what costs least in all."""
        finest = max(min(each.largest for each in found) for found in self.options.values())
        cheapest = max(min(found, key=_total).largest for found in self.options.values())
        return np.geomspace(finest, max(finest, cheapest), _THRESHOLDS).tolist()

    def _fill(self, most: float, *, by_bytes: bool) -> str:
        """Places tables one by one, each in the cheapest sharding that fits.

        Args:
            most: seconds that one part of a table may take, if the table can be split so.
            by_bytes: whether large tables come first, or those whose parts take long.

        Returns:
            Why it did not succeed, if so.
        """
        self._restore({})
        ranked = {
            name: sorted(found, key=lambda each: (each.largest > most * (1 + 1e-9), each.total))
            for name, found in self.options.items()
        }
        for name in sorted(
            ranked,
            key=lambda name: -(self.tables[name].nbytes if by_bytes else ranked[name][0].largest),
        ):
            placed = next((p for each in ranked[name] if (p := self._try(each))), None)
            if placed is None:
                return self._no_room(self.tables[name])
            self._add(name, placed)
        return ""

    def _improve(self) -> None:
        for _ in range(_ROUNDS):
            if not (self._split_otherwise() or self._swap()):
                return

    def _split_otherwise(self) -> bool:
        """Places tables of the busiest chip anew, one by one; whether that helped."""
        helped = False
        for name in self._busiest():
            helped |= self._replace([name], [self.options[name]])
        return helped

    def _swap(self) -> bool:
        """Swaps a table of the busiest chip with one that is not on it; whether that helped."""
        busiest = self._busiest()
        for name in busiest:
            if len(self.places[name].chips) in (0, len(self.bytes)):  # it is on every chip
                continue
            for other in self.tables:
                if other not in busiest and self._replace(
                    [name, other], [self.options[name], self.options[other]]
                ):
                    return True
        return False

    def _replace(self, names: Sequence[str], options: Sequence[Sequence[_Option]]) -> bool:
        """Takes tables out and places them in order, if that is better; whether it was."""
        score, before = self._score(), [self.places[name] for name in names]
        for name in names:
            self._remove(name)
        for name, choices in zip(names, options, strict=True):
            placed = self._best(choices)
            if placed is None:
                break
            self._add(name, placed)
        else:
            if _better(self._score(), score):
                return True
        for name in names:
            if name in self.places:
                self._remove(name)
        for name, place in zip(names, before, strict=True):
            self._add(name, place)
        return False

    def _busiest(self) -> list[str]:
        """Tables on the busiest chip, those with most to do first."""
        chip = int(np.maximum(self.gather, self.exchange).argmax())
        seconds = {}
        for name, place in self.places.items():
            at = slice(None) if not len(place.chips) else place.chips == chip
            shards = place.option.shards
            parts = np.maximum(shards.gather_seconds, shards.exchange_seconds)[at]
            if len(parts):
                seconds[name] = float(parts.sum()) + shards.reduce_seconds
        return sorted(seconds, key=lambda name: -seconds[name])

    def _best(self, options: Sequence[_Option]) -> _Place | None:
        """Where a table goes so that the busiest chip has least to do."""
        best, least = None, (math.inf, math.inf)
        for option in options:
            place = self._try(option)
            if place is None:
                continue
            self._change(place, 1)
            score = self._score()
            self._change(place, -1)
            if best is None or _better(score, least):
                best, least = place, score
        return best

    def _try(self, option: _Option) -> _Place | None:
        """The least busy chips that have room, the busiest shard to the least busy; or None."""
        shards = option.shards
        room = self.limit * (1 + 1e-12) - self.bytes >= shards.nbytes
        if option.sharding.replicated:
            return _Place(option, np.zeros(0, np.int64)) if room.all() else None
        free = np.flatnonzero(room)
        if len(free) < option.sharding.shards:
            return None
        loads = np.maximum(self.gather, self.exchange)[free]
        chosen = free[np.argsort(loads, kind="stable")[: option.sharding.shards]]
        chips = np.empty_like(chosen)
        chips[option.order] = chosen
        return _Place(option, chips)

    def _add(self, name: str, place: _Place) -> None:
        self.places[name] = place
        self._change(place, 1)

    def _remove(self, name: str) -> None:
        self._change(self.places.pop(name), -1)

    def _change(self, place: _Place, sign: int) -> None:
        shards = place.option.shards
        at = place.chips if len(place.chips) else slice(None)
        self.bytes[at] += sign * shards.nbytes
        self.gather[at] += sign * shards.gather_seconds
        self.exchange[at] += sign * (shards.exchange_seconds + shards.reduce_seconds)

    def _restore(self, places: Mapping[str, _Place]) -> None:
        self.places = {}
        for array in (self.bytes, self.gather, self.exchange):
            array[:] = 0  # not taken away again: what rounding left goes too
        for name, place in places.items():
            self._add(name, place)

    def _score(self) -> tuple[float, float]:
        """Seconds of the busiest chip, and the sum of squares of all seconds; less is better."""
        loads = np.maximum(self.gather, self.exchange)
        return float(loads.max()), float(self.gather @ self.gather + self.exchange @ self.exchange)

    def _no_room(self, table: Table) -> str:
        smallest = min(self.options[table.name], key=lambda each: each.shards.nbytes)
        return (
            f"No chip has room for table {table.name!r}: in {smallest.sharding} a part takes "
            f"{smallest.shards.nbytes:.0f} bytes, and where others are placed "
            f"{max(0.0, self.limit - float(self.bytes.min())):.0f} of {self.limit:.0f} bytes are "
            "left on the emptiest chip; allow more parts, or take more chips or narrower elements."
        )


def _total(option: _Option) -> float:
    return option.total


def _better(score: tuple[float, float], than: tuple[float, float]) -> bool:
    """Whether a score is lower by more than rounding."""
    for mine, other in zip(score, than, strict=True):
        if not math.isclose(mine, other, rel_tol=1e-9):
            return mine < other
    return False


def _options(
    model: EmbeddingModel, setting: EmbeddingSetting, allowed: Mapping[str, Sequence[Sharding]]
) -> dict[str, list[_Option]]:
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
        found[table.name] = [
            _Option(each, shards, _order(shards), setting.chips) for each, shards in costs
        ]
    return found


def _order(shards: Shards) -> Int64[np.ndarray, " shards"]:
    """Shards with most to do first."""
    return np.argsort(-np.maximum(shards.gather_seconds, shards.exchange_seconds), kind="stable")


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
