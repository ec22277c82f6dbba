"""How few links a cut into two halves crosses: an upper bound, by search.

All-to-all is not modelled with it: link loads are, which it bounds from below only. A twist doubles
the width of 4x4x8 and of 4x8x8, and raises all-to-all by 1.745 and 1.391.

Source: Kernighan and Lin 1970, "An efficient heuristic procedure for partitioning graphs".
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from gossamer.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Cut:
    """A cut into halves, which differ by one chip where their number is odd.

    Attributes:
        links: that it crosses, both directions of a link counted as one.
        side: which chips lie on one side of it.
    """

    links: int
    side: Bool[np.ndarray, " chips"]


def best_cut(topology: Topology, *, starts: int = 4, seed: int = 0) -> Cut:
    """The narrowest balanced cut that was found; there may be a narrower one.

    Planes through the box and random halves are made narrower by Kernighan and Lin's exchanges
    until none helps.

    Args:
        topology: of two chips or more.
        starts: random halves to begin from.
        seed: of their choice.

    Raises:
        ValueError: one chip has no halves.

    Example:
        >>> from gossamer.planning import torus, twisted_torus
        >>> best_cut(torus((4, 4, 8))).links, best_cut(twisted_torus((4, 4, 8))).links
        (32, 64)
    """
    if topology.chips < 2:
        raise ValueError("A cut into halves needs 2 chips or more, got 1.")
    rng = np.random.default_rng(seed)
    random = (rng.permutation(topology.chips) for _ in range(starts))
    cuts = [_improved(topology, order) for order in itertools.chain(_planes(topology), random)]
    return min(cuts, key=lambda cut: cut.links)


def _planes(topology: Topology) -> Iterator[Int[np.ndarray, " chips"]]:
    """The chips in the order in which a plane that moves along each axis meets them."""
    for places in topology.coordinates.T:
        yield np.argsort(places, kind="stable")


def _improved(topology: Topology, order: Int[np.ndarray, " chips"]) -> Cut:
    """What exchanges make of the half that comes first in an order."""
    side = np.zeros(topology.chips, bool)
    side[order[: topology.chips // 2]] = True
    best = Cut(int(_crossing(topology, side).sum()) // 2, side)
    while (found := _exchanged(topology, best)).links < best.links:
        best = found
    return best


def _crossing(topology: Topology, side: Bool[np.ndarray, " chips"]) -> Bool[np.ndarray, "chips d"]:
    """Which links lead to the other side."""
    table = topology.neighbours
    return (table >= 0) & (side[table] != side[:, None])


def _exchanged(topology: Topology, cut: Cut) -> Cut:
    """The narrowest cut on the way from one to its mirror image, the best pair exchanged each time.

    Pairs that widen the cut are exchanged too: a narrower one may lie behind them.
    """
    side, free, links = cut.side.copy(), np.ones(topology.chips, bool), cut.links
    crossing = _crossing(topology, side).sum(1)
    gains = 2 * crossing - (topology.neighbours >= 0).sum(1)  # links saved by moving a chip
    best = cut
    for _ in range(topology.chips // 2):
        for half in (True, False):
            movable = np.flatnonzero(free & (side == half))
            chip = movable[gains[movable].argmax()]
            around = topology.neighbours[chip]
            around = around[around >= 0]
            gains[around] += np.where(side[around] == half, 2, -2)
            links -= int(gains[chip])
            side[chip], free[chip] = not half, False
        if links < best.links:
            best = Cut(links, side.copy())
    return best
