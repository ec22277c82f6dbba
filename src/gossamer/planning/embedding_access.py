r"""How often rows of an embedding table are looked up: Zipf's law, exactly and by drawing.

Rows are numbered by how often they are asked for. With the skew :math:`s` the row of rank
:math:`i`, from 1 on, is asked for with the probability :math:`p_i \propto i^{-s}`; 0 is uniform.
Of :math:`d` independent lookups the row sees at least one with :math:`1 - (1 - p_i)^d`, and the
sum of that over rows is how many are distinct: what is left once duplicates are removed.

Tables have up to billions of rows. Ranks beyond the first are summed as an integral, with the first
correction of Euler and Maclaurin's formula; the sums are right to nine digits or more.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

_HEAD = 1 << 14  # ranks that are summed one by one; the others' sum is then right to 1e-10
_TURNS = 16  # times that the head goes round the shards, so that the tail is level among them
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)

Term = Callable[[Float64[np.ndarray, " ranks"]], Float64[np.ndarray, " ranks"]]


@functools.lru_cache(maxsize=4096)
def unique_rows(rows: int, skew: float, lookups: float) -> float:
    """Expected number of distinct rows among independent lookups.

    Args:
        rows: of the table.
        skew: Zipf's exponent, 0 or more.
        lookups: d; the mean where it varies.

    Example:
        >>> unique_rows(2, 0.0, 2.0)  # the second is the first's equal half of the time
        1.5
    """
    _check(rows, skew, lookups)
    return _sum_over_ranks(_hit_chance(rows, skew, lookups), rows)


def unique_fraction(rows: int, skew: float, lookups: float) -> float:
    """Share of the lookups that are left where each row is asked for once."""
    return min(1.0, unique_rows(rows, skew, lookups) / lookups)


@functools.lru_cache(maxsize=4096)
def unique_rows_of_shards(
    rows: int, skew: float, lookups: float, shards: int
) -> Float64[np.ndarray, " shards"]:
    """Expected distinct rows of each shard, where row `i` belongs to shard `i % shards`.

    The first shard has the row that is asked for most.

    Example:
        >>> unique_rows_of_shards(4, 0.0, 1.0, 2).round(9).tolist()
        [0.5, 0.5]
    """
    _check(rows, skew, lookups)
    return _deal(_hit_chance(rows, skew, lookups), rows, shards)


@functools.lru_cache(maxsize=4096)
def lookups_of_shards(
    rows: int, skew: float, lookups: float, shards: int
) -> Float64[np.ndarray, " shards"]:
    """Expected lookups of each shard, duplicates included; see `unique_rows_of_shards`."""
    _check(rows, skew, lookups)
    scale = lookups / _harmonic(rows, skew)
    return _deal(lambda ranks: scale * ranks**-skew, rows, shards)


def simulate_unique_rows(
    rows: int, skew: float, lookups: int, *, trials: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Mean number of distinct rows among drawn lookups, and its standard error.

    Args:
        rows: of the table; all their probabilities are held.
        skew: Zipf's exponent, 0 or more.
        lookups: of each trial.
        trials: 2 or more.
        seed: the same gives the same.
    """
    _check(rows, skew, float(lookups))
    if trials < 2:
        raise ValueError(f"A standard error needs 2 trials or more, got {trials}.")
    generator = np.random.default_rng(seed)
    reached = np.cumsum(np.arange(1.0, rows + 1) ** -skew)
    counts = []
    for _ in range(trials):
        drawn = np.searchsorted(reached, generator.random(lookups) * reached[-1], side="right")
        counts.append(len(np.unique(drawn)))
    return float(np.mean(counts)), float(np.std(counts, ddof=1)) / math.sqrt(trials)


@functools.lru_cache(maxsize=4096)
def _harmonic(rows: int, skew: float) -> float:
    """The sum of all rows' weights."""
    return _sum_over_ranks(lambda ranks: ranks**-skew, rows)


def _hit_chance(rows: int, skew: float, lookups: float) -> Term:
    """The probability that a rank is among the lookups."""
    scale = 1 / _harmonic(rows, skew)

    def chance(ranks: Float64[np.ndarray, " ranks"]) -> Float64[np.ndarray, " ranks"]:
        with np.errstate(divide="ignore"):  # a table of one row is always hit: log 0
            return -np.expm1(lookups * np.log1p(-np.minimum(1.0, scale * ranks**-skew)))

    return chance


def _sum_over_ranks(term: Term, rows: int) -> float:
    head = min(rows, _HEAD)
    total = float(term(np.arange(1.0, head + 1)).sum())
    return total + _tail(term, head, rows)


def _tail(term: Term, head: int, rows: int) -> float:
    """The sum of the terms of the ranks after `head`: an integral over the rank's logarithm."""
    if rows == head:
        return 0.0
    first, last = math.log(head + 0.5), math.log(rows + 0.5)
    panels = math.ceil(2 * (last - first))
    edges = np.linspace(first, last, panels + 1)
    half = np.diff(edges)[:, None] / 2
    ranks = np.exp(edges[:-1, None] + half * (1 + _NODES)).ravel()
    integral = float((half * _WEIGHTS).ravel() @ (term(ranks) * ranks))
    start, after_start, end, after_end = term(np.array([head, head + 1.0, rows, rows + 1.0]))
    return integral - float((after_end - end) - (after_start - start)) / 24


def _deal(term: Term, rows: int, shards: int) -> Float64[np.ndarray, " shards"]:
    """The sum of the terms of each shard's ranks."""
    if shards < 1:
        raise ValueError(f"shards needs to be 1 or more, got {shards}.")
    turns = max(_TURNS, -(-_HEAD // shards))
    head = min(rows, turns * shards)
    ranks = np.arange(head)
    dealt = np.bincount(ranks % shards, term(ranks + 1.0), minlength=shards)
    if rows == head:
        return dealt
    # Of what comes after, shard 0 has the largest of each turn: half a turn's step more than the
    # mean. So it is where the last turn ends, with the sign turned.
    place = np.arange(shards)
    left_over = (rows - head) % shards
    ahead = ((shards - 1) / 2 - place) / shards
    behind = ((shards - 1) / 2 - (place - left_over) % shards) / shards
    first, last = term(np.array([head + 0.5, rows + 0.5]))
    return dealt + _tail(term, head, rows) / shards + ahead * first - behind * last


def _check(rows: int, skew: float, lookups: float) -> None:
    if rows < 1:
        raise ValueError(f"rows needs to be 1 or more, got {rows}.")
    if not skew >= 0:
        raise ValueError(f"skew needs to be 0 or more, got {skew}.")
    if not lookups > 0:
        raise ValueError(f"lookups needs to be positive, got {lookups}.")
