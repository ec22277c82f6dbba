"""The search for where parts of embedding tables go; see `gossamer.planning.embedding_placement`.

Fine parts are even and cost more in all, coarse ones cost least: first every table takes its
cheapest sharding whose parts stay below a threshold, on the chips that are least busy, for many
thresholds. Then tables of the busiest chip are split in another way or moved, alone or with
another, while that helps.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64

from gossamer.planning.embedding_costs import Shards
from gossamer.planning.embeddings import Sharding, Table

_THRESHOLDS = 24  # first placements, from coarse parts to fine ones
_STARTS, _MOST_STARTS = 3, 10  # of them that are improved, and while that is far from the bound
_NEAR = 1.05  # of the busiest chip's seconds over the bound
_CHEAPEST = 4  # shardings of the first of two tables that are moved together
_PAIR_TRIES = 10_000  # of a second table's shardings, beside those, in each round
_ROUNDS = 20  # of improvements over all tables; searches of 150 tables end after some 5

Rank: TypeAlias = tuple[bool, float]
"""What shardings are sorted by."""


@dataclasses.dataclass(frozen=True)
class Option:
    """A way to split a table, and what it costs.

    Attributes:
        sharding: how it is split.
        shards: what each part costs.
        chips: of the slice.
    """

    sharding: Sharding
    shards: Shards
    chips: int

    @functools.cached_property
    def total(self) -> float:
        """Seconds of all chips together, the slower of memory and links."""
        gather, exchange = self.shards.gather_seconds.sum(), self.shards.exchange_seconds.sum()
        if self.sharding.replicated:
            return self.chips * float(max(gather, self.shards.reduce_seconds))
        return float(max(gather, exchange))

    @functools.cached_property
    def order(self) -> Int64[np.ndarray, " shards"]:
        """The parts, those first that take longest."""
        parts = np.maximum(self.shards.gather_seconds, self.shards.exchange_seconds)
        return np.argsort(-parts, kind="stable")

    @functools.cached_property
    def largest(self) -> float:
        """Seconds of the part that takes longest."""
        parts = np.maximum(self.shards.gather_seconds, self.shards.exchange_seconds)
        return max(float(parts.max()), self.shards.reduce_seconds)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A table that has been placed: its option and the chip of each shard."""

    option: Option
    chips: Int64[np.ndarray, " shards"]


class Search:
    """The chips as they fill, and how they are filled.

    Attributes:
        tables: by name.
        places: where each table is.
        bytes: of each chip.
        gather: seconds of each chip's memory.
        exchange: seconds of each chip's links, all-reduces included.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        options: Mapping[str, Sequence[Option]],
        *,
        chips: int,
        limit: float,
    ) -> None:
        """Begins with empty chips.

        Args:
            tables: to place.
            options: of each table, by name; one or more.
            chips: of the slice.
            limit: bytes that a chip has for tables.
        """
        self.tables = {table.name: table for table in tables}
        self.options = options
        self.limit = limit
        self.places: dict[str, _Place] = {}
        self.bytes, self.gather, self.exchange = np.zeros((3, chips))

    def run(self) -> None:
        """Places all tables in several ways, and improves the best of them.

        Raises:
            ValueError: there was no room.
        """
        found: dict[tuple[float, float], dict[str, _Place]] = {}  # several ways end alike
        failure = ""
        ranks = [functools.partial(_by_cost, most=most) for most in self._thresholds()]
        for rank, large_first in itertools.product([*ranks, _by_bytes], (False, True)):
            failure = self._fill(rank, large_first=large_first)
            if not failure:
                found[self._score()] = dict(self.places)
        if not found:
            raise ValueError(failure)
        best: dict[tuple[float, float], dict[str, _Place]] = {}
        # As if all chips had equal shares of what costs least.
        bound = sum(min(map(_total, each)) for each in self.options.values()) / len(self.bytes)
        for start, score in enumerate(sorted(found)[:_MOST_STARTS]):
            if start >= _STARTS and min(best)[0] <= _NEAR * bound:
                break
            self._restore(found[score])
            self._improve()
            best[self._score()] = dict(self.places)
        self._restore(best[min(best)])

    def _thresholds(self) -> list[float]:
        """Seconds that one part may take: from the least that can be to what costs least in all."""
        finest = max(min(each.largest for each in found) for found in self.options.values())
        cheapest = max(min(found, key=_total).largest for found in self.options.values())
        return np.geomspace(finest, cheapest, _THRESHOLDS).tolist() if finest else [0.0]

    def _fill(self, rank: Callable[[Option], Rank], *, large_first: bool) -> str:
        """Places tables one by one.

        Args:
            rank: of a sharding: each table takes that with the lowest, among those that fit.
            large_first: whether large tables come first, or those whose parts take long.

        Returns:
            Why it did not succeed, if so.
        """
        self._restore({})
        ranked = {name: sorted(found, key=rank) for name, found in self.options.items()}
        size = {
            name: self.tables[name].nbytes if large_first else found[0].largest
            for name, found in ranked.items()
        }
        for name in sorted(ranked, key=lambda name: -size[name]):
            placed = next((p for each in ranked[name] if (p := self._try(each))), None)
            if placed is None:
                return self._no_room(self.tables[name])
            self._add(name, placed)
        return ""

    def _improve(self) -> None:
        for _ in range(_ROUNDS):
            if not (self._move() or self._move_pairs()):
                return

    def _move(self) -> bool:
        """Places tables of the busiest chip anew, one by one; whether that helped."""
        helped = False
        for name in self._busiest():
            helped |= self._replace(name)
        return helped

    def _move_pairs(self) -> bool:
        """Places a table of the busiest chip anew together with another; whether that helped."""
        tries = 0
        for name, other in itertools.product(self._busiest(), self.tables):
            if name == other:
                continue
            cheapest = sorted(self.options[name], key=_total)[:_CHEAPEST]
            tries += len(cheapest) * len(self.options[other])
            if tries > _PAIR_TRIES:
                return False
            if self._replace(other, first=(name, cheapest)):
                return True
        return False

    def _replace(self, name: str, first: tuple[str, Sequence[Option]] | None = None) -> bool:
        """Takes a table out and places it anew, if that is better; whether it was.

        Args:
            name: of the table, which takes any of its shardings.
            first: another table and shardings of it, which is placed anew before.
        """
        names = [name] if first is None else [first[0], name]
        score, before = self._score(), {each: self.places[each] for each in names}
        for each in names:
            self._remove(each)
        heads = [[]] if first is None else [[p] for each in first[1] if (p := self._try(each))]
        best = before
        for head in heads:
            for place in head:
                self._change(place, 1)
            last = self._best(self.options[name])
            if last is not None:
                self._change(last, 1)
                if _better(self._score(), score):
                    score, best = self._score(), dict(zip(names, [*head, last], strict=True))
                self._change(last, -1)
            for place in head:
                self._change(place, -1)
        for each, place in best.items():
            self._add(each, place)
        return best is not before

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

    def _best(self, options: Sequence[Option]) -> _Place | None:
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

    def _try(self, option: Option) -> _Place | None:
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


def _by_cost(option: Option, *, most: float) -> Rank:
    """Shardings whose parts take at most so many seconds, then others; the cheapest first."""
    return option.largest > most * (1 + 1e-9), option.total


def _by_bytes(option: Option) -> Rank:
    """Shardings into small parts first: what fits if anything does."""
    return option.sharding.replicated, option.shards.nbytes


def _total(option: Option) -> float:
    return option.total


def _better(score: tuple[float, float], than: tuple[float, float]) -> bool:
    """Whether a score is lower by more than rounding."""
    for mine, other in zip(score, than, strict=True):
        if not math.isclose(mine, other, rel_tol=1e-9):
            return mine < other
    return False
