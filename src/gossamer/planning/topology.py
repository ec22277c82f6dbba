"""Tori and meshes of chips, regular and twisted: neighbours, distances, loads of links.

Chips are numbered in row-major order of their coordinates. A column of a table of links is a
direction: column 2a goes up along axis a, column 2a + 1 goes down.

Source: Jouppi et al. 2023, arXiv 2304.01433, section 2 and figure 5, for what is twisted; the
paper prints no rule in three dimensions, and this one follows from the lattices that it cites:
Camarero, Martinez and Beivide 2013, arXiv 1311.2019.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

_BATCH = 64  # sources looked at together: a row of counts is then 512 bytes, and stays in the cache


@dataclasses.dataclass(frozen=True)
class Topology:
    """A box of chips whose neighbours are linked, and what joins its opposite faces.

    Two links between the same two chips count as one: an axis of two chips has one, wrapped or not.

    Attributes:
        sizes: chips along each of one to three axes.
        seams: for each axis, what is added to the coordinates of a chip on its last face to find
            the chip on the first face that it is linked to, its own axis apart; all zeros for a
            ring, None where nothing joins the faces.
    """

    sizes: tuple[int, ...]
    seams: tuple[tuple[int, ...] | None, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.sizes) <= 3:
            raise ValueError(f"A topology needs one to three axes, got the sizes {self.sizes}.")
        if min(self.sizes) < 1:
            raise ValueError(f"Each axis needs 1 chip or more, got the sizes {self.sizes}.")
        if len(self.seams) != len(self.sizes):
            raise ValueError(
                f"Each of {len(self.sizes)} axes needs a seam, or None; got {len(self.seams)}."
            )
        for axis, seam in enumerate(self.seams):
            self._check_seam(axis, seam)

    def _check_seam(self, axis: int, seam: tuple[int, ...] | None) -> None:
        if seam is None:
            return
        if len(seam) != len(self.sizes) or seam[axis]:
            raise ValueError(
                f"The seam of axis {axis} needs a shift along each of {len(self.sizes)} axes, "
                f"0 along its own; got {seam}."
            )
        for other, shift in enumerate(seam):
            if not 0 <= shift < self.sizes[other]:
                raise ValueError(
                    f"The seam of axis {axis} needs a shift from 0 to {self.sizes[other] - 1} "
                    f"along axis {other}, got {shift}."
                )
            if shift and self.seams[other] is None:
                raise ValueError(
                    f"The seam of axis {axis} shifts along axis {other}, whose faces are not "
                    "joined; wrap that axis too."
                )

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))

    @property
    def chips(self) -> int:
        """How many there are, N."""
        return math.prod(self.sizes)

    @functools.cached_property
    def coordinates(self) -> Int[np.ndarray, "chips axes"]:
        """Where each chip is."""
        places = np.indices(self.sizes).reshape(len(self.sizes), -1).T
        return _frozen(np.ascontiguousarray(places))

    @functools.cached_property
    def neighbours(self) -> Int[np.ndarray, "chips directions"]:
        """The chip that each link leads to; -1 where there is none, or where an earlier one does.

        Example:
            >>> torus((4,)).neighbours[3].tolist()
            [0, 2]
        """
        columns = [self._steps(axis, up) for axis in range(len(self.sizes)) for up in (True, False)]
        table = np.stack(columns, axis=1)
        table[table == np.arange(self.chips)[:, None]] = -1
        for earlier, later in itertools.combinations(range(table.shape[1]), 2):
            table[table[:, later] == table[:, earlier], later] = -1
        return _frozen(table)

    def _steps(self, axis: int, up: bool) -> Int[np.ndarray, " chips"]:
        """Where each chip's link up or down an axis leads, -1 for nowhere."""
        seam = self.seams[axis]
        ahead = self.coordinates.copy()
        ahead[:, axis] += 1
        over = ahead[:, axis] == self.sizes[axis]
        ahead[over, axis] = 0
        if seam is not None:
            ahead[over] = (ahead[over] + seam) % self.sizes
        target = np.asarray(np.ravel_multi_index(tuple(ahead.T), self.sizes))
        if seam is None:
            target[over] = -1
        if up:
            return target
        back = np.full(self.chips, -1)
        back[target[target >= 0]] = np.flatnonzero(target >= 0)
        return back

    @functools.cached_property
    def translates(self) -> bool:
        """Whether moving all chips by any step maps links to links: all chips then see the same.

        It holds if steps along different axes can be taken in either order: they then generate a
        commutative group that takes any chip to any other, and each of its members keeps all links.
        """
        if any(seam is None for seam in self.seams):
            return False
        steps = [self._steps(axis, True) for axis in range(len(self.sizes))]
        pairs = itertools.combinations(steps, 2)
        return all(np.array_equal(first[second], second[first]) for first, second in pairs)

    def distances(self, source: int) -> Int[np.ndarray, " chips"]:
        """Hops from a chip to each.

        Raises:
            ValueError: there is no such chip.
        """
        if not 0 <= source < self.chips:
            raise ValueError(f"The chips of {self} are 0 to {self.chips - 1}, got {source}.")
        return self.shortest_paths(np.array([source]))[0][:, 0]

    def shortest_paths(
        self, sources: Int[np.ndarray, " sources"]
    ) -> tuple[Int[np.ndarray, "chips sources"], Float[np.ndarray, "chips sources"]]:
        """Hops from each source to each chip, and how many paths have as few."""
        table = self.neighbours  # -1 reads the row of zeros at the end
        columns = np.arange(len(sources))
        hops = np.full((self.chips, len(sources)), -1)
        paths = np.zeros((self.chips, len(sources)))
        hops[sources, columns], paths[sources, columns] = 0, 1.0
        edge = np.vstack([paths, np.zeros((1, len(sources)))])
        for hop in itertools.count(1):
            reached = sum((edge[column] for column in table.T[1:]), edge[table[:, 0]])
            reached[hops >= 0] = 0.0
            new = reached > 0
            if not new.any():
                break
            hops[new] = hop
            paths += reached
            edge[:-1] = reached
        return hops, paths

    def _batches(self) -> Iterator[Int[np.ndarray, " sources"]]:
        """The sources that have to be looked at: one stands for all where chips see the same."""
        sources = np.arange(1 if self.translates else self.chips)
        return iter(np.split(sources, range(_BATCH, len(sources), _BATCH)))

    @functools.cached_property
    def _hops(self) -> tuple[int, Int[np.ndarray, " chips"]]:
        hops = [self.shortest_paths(sources)[0] for sources in self._batches()]
        sums = np.concatenate([batch.sum(0) for batch in hops])
        return max(int(batch.max()) for batch in hops), _frozen(np.resize(sums, self.chips))

    @property
    def diameter(self) -> int:
        """Hops between the two chips farthest apart."""
        return self._hops[0]

    @property
    def distance_sums(self) -> Int[np.ndarray, " chips"]:
        """Of each chip, the hops to all others together, S.

        Example:
            >>> twisted_torus((4, 2)).distance_sums.tolist()
            [10, 10, 10, 10, 10, 10, 10, 10]
        """
        return self._hops[1]

    @property
    def mean_hops(self) -> float:
        """Hops between two different chips, on average; 0 for one chip."""
        return float(self.distance_sums.sum()) / max(1, self.chips * (self.chips - 1))

    @functools.cached_property
    def link_loads(self) -> Float[np.ndarray, "chips directions"]:
        """What each link carries while each chip sends one unit to each other chip.

        All shortest paths between two chips carry equal parts. Where there is no link, 0.

        Source: Brandes 2001, "A faster algorithm for betweenness centrality", for counting paths.
        """
        loads = sum(
            (self._loads_from(sources) for sources in self._batches()),
            np.zeros(self.neighbours.shape),
        )
        if self.translates:  # a link carries from all sources what its like carry from one
            loads = np.broadcast_to(loads.sum(0), loads.shape)
        return _frozen(loads)

    def _loads_from(self, sources: Int[np.ndarray, " sources"]) -> Float[np.ndarray, "chips dirs"]:
        """What these sources put on each link."""
        hops, paths = self.shortest_paths(sources)
        loads = np.zeros(self.neighbours.shape)
        beyond = np.zeros_like(paths)  # units that pass a chip, without those that end there
        share = np.zeros((self.chips + 1, len(sources)))  # units a path, of the chips one hop on
        for hop in range(int(hops.max()), 0, -1):
            share[:-1] = np.where(hops == hop, (1 + beyond) / paths, 0.0)
            here = np.where(hops == hop - 1, paths, 0.0)
            for direction, targets in enumerate(self.neighbours.T):
                carried = here * share[targets]
                loads[:, direction] += carried.sum(1)
                beyond += carried
        return loads

    @property
    def max_link_load(self) -> float:
        """Of the link that carries most, L: an all-to-all of m bytes a pair takes m L / bandwidth.

        Example:
            >>> print(torus((4, 4, 8)).max_link_load)
            128.0
            >>> round(twisted_torus((4, 4, 8)).max_link_load, 3)
            73.333
        """
        return float(self.link_loads.max(initial=0.0))

    @property
    def axis_loads(self) -> tuple[float, ...]:
        """Of the links along each axis, the largest load."""
        by_axis = self.link_loads.reshape(self.chips, len(self.sizes), 2)
        return tuple(by_axis.max(axis=(0, 2)).tolist())


def mesh(sizes: Sequence[int]) -> Topology:
    """Chips in a box whose faces are not joined."""
    return Topology(tuple(sizes), (None,) * len(sizes))


def torus(sizes: Sequence[int]) -> Topology:
    """Chips in a box, each axis a ring."""
    return Topology(tuple(sizes), ((0,) * len(sizes),) * len(sizes))


def twisted_torus(sizes: Sequence[int]) -> Topology:
    """Chips in a box some of whose axes are twice as long as the others, n and 2n.

    Crossing the seam of a short axis shifts every long axis by n, half of its length.

    Args:
        sizes: n x 2n, n x n x 2n or n x 2n x 2n, in any order, n at least 2.

    Raises:
        ValueError: they are not of that form.

    Example:
        >>> torus((4, 8, 8)).diameter, twisted_torus((4, 8, 8)).diameter
        (10, 6)
    """
    short = min(sizes, default=0)
    if short < 2 or set(sizes) != {short, 2 * short}:
        raise ValueError(
            f"A twisted torus needs axes of n and of 2n chips, n at least 2, such as 4x4x8 or "
            f"4x8x8; got {'x'.join(map(str, sizes))}."
        )
    shifts = tuple(0 if size == short else short for size in sizes)
    none = (0,) * len(sizes)
    return Topology(tuple(sizes), tuple(shifts if size == short else none for size in sizes))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
