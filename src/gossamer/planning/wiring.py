"""How optical switches join cubes into slices: any cubes, and a twist by other permutations alone.

Each face of a cube has 16 fibres, one a chip. The two fibres that leave a cube at the same place of
opposite faces end at the same switch, so there are 48: one an axis, row and column of a face. A
switch joins the upper fibre of a cube to the lower fibre of a cube: a permutation of cubes. A twist
shifts by whole cubes and leaves places in a face alone, so all 16 switches of an axis do the same,
and three permutations of cubes are a slice.

Source: Jouppi et al. 2023, arXiv 2304.01433, section 2 and figure 1. The address of a
switch is ours, consistent with the figure.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from gossamer.planning.slices import CUBE_SIDE, MACHINE_CUBES, Slice

Chip = tuple[int, int, int, int]
"""A chip of a machine: its cube, and its coordinates in the cube."""
Place = tuple[int, int, int]
"""Coordinates of a chip in its cube."""
Links = frozenset[frozenset[Chip]]
"""Links between chips, without direction."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fabric:
    """What a machine of cubes is wired with.

    Attributes:
        cubes: in the machine, each with a port for either direction on every switch.
        spare_ports: of each switch, for tests and repairs.

    Example:
        >>> machine = Fabric()
        >>> machine.switches, machine.switch_ports, machine.optical_links, machine.links
        (48, 136, 3072, 12288)
    """

    cubes: int = MACHINE_CUBES
    spare_ports: int = 8

    def __post_init__(self) -> None:
        if self.cubes < 1 or self.spare_ports < 0:
            raise ValueError(
                f"A machine needs 1 cube or more and 0 spare ports or more, got {self.cubes} and "
                f"{self.spare_ports}."
            )

    @property
    def chips(self) -> int:
        """In the machine."""
        return self.cubes * CUBE_SIDE**3

    @property
    def link_ends_per_cube(self) -> int:
        """Ends of links at the chips of a cube, six a chip."""
        return 6 * CUBE_SIDE**3

    @property
    def electrical_links_per_cube(self) -> int:
        """Links between chips of one cube."""
        return 3 * CUBE_SIDE**2 * (CUBE_SIDE - 1)

    @property
    def fibres_per_cube(self) -> int:
        """Fibres that leave a cube, each for both directions of a link."""
        return 6 * CUBE_SIDE**2

    @property
    def switches(self) -> int:
        """One an axis and place in a face."""
        return len(switches())

    @property
    def ports_used(self) -> int:
        """Of one switch: two a cube."""
        return 2 * self.cubes

    @property
    def switch_ports(self) -> int:
        """Of one switch, spare ones included."""
        return self.ports_used + self.spare_ports

    @property
    def fibres(self) -> int:
        """In the machine."""
        return self.switches * self.ports_used

    @property
    def optical_links(self) -> int:
        """In the machine, where all cubes are used: two fibres joined by a switch."""
        return self.fibres // 2

    @property
    def links(self) -> int:
        """In the machine, electrical and optical."""
        return self.cubes * self.electrical_links_per_cube + self.optical_links


@dataclasses.dataclass(frozen=True, order=True)
class Switch:
    """An optical switch, by its axis and the place in the faces that its fibres come from.

    Attributes:
        axis: 0 to 2.
        row: of the place, 0 to 3: along the first of the other axes.
        column: along the second of them.
    """

    axis: int
    row: int
    column: int

    def __post_init__(self) -> None:
        if not (0 <= self.axis < 3 and 0 <= self.row < CUBE_SIDE and 0 <= self.column < CUBE_SIDE):
            raise ValueError(
                f"A switch has an axis from 0 to 2, a row and a column from 0 to {CUBE_SIDE - 1}; "
                f"got {self.axis}, {self.row} and {self.column}."
            )

    def chip(self, cube: int, *, upper: bool) -> Chip:
        """The chip of a cube whose fibre ends at this switch, on its upper or lower face."""
        place = [self.row, self.column]
        place.insert(self.axis, CUBE_SIDE - 1 if upper else 0)
        x, y, z = place
        return cube, x, y, z


def switches() -> tuple[Switch, ...]:
    """All switches of a machine."""
    sides = range(CUBE_SIDE)
    return tuple(Switch(*place) for place in itertools.product(range(3), sides, sides))


@dataclasses.dataclass(frozen=True)
class Wiring:
    """A slice on chosen cubes of a machine.

    Attributes:
        slice: what is made of them.
        cubes: their numbers in the machine, in row-major order of their places in the slice. Any
            will do, next to each other or not.

    Raises:
        ValueError: the slice is smaller than a cube, the cubes are too few or too many, one is
            named twice, or one is negative.

    Example:
        >>> twisted = Wiring(Slice((4, 4, 8), twisted=True), (17, 40))
        >>> twisted.permutation(0), twisted.permutation(2)
        ({17: 40, 40: 17}, {17: 40, 40: 17})
    """

    slice: Slice
    cubes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.slice.cubes:
            raise ValueError(
                f"The slice {self.slice} is a part of one cube: no switch joins its chips."
            )
        if len(self.cubes) != self.slice.cubes:
            raise ValueError(
                f"The slice {self.slice} needs {self.slice.cubes} cubes, got {len(self.cubes)}."
            )
        if len(set(self.cubes)) < len(self.cubes):
            twice = sorted({cube for cube in self.cubes if self.cubes.count(cube) > 1})
            raise ValueError(f"Each cube can be used once, got {twice} more often.")
        if min(self.cubes) < 0:
            raise ValueError(f"Cubes are numbered from 0, got {min(self.cubes)}.")

    def permutation(self, axis: int) -> dict[int, int]:
        """For each cube, the cube whose lower face its upper face is joined to along an axis."""
        sizes = self.slice.cube_sizes
        seam = self.slice.topology.seams[axis]
        assert seam is not None, "slices of whole cubes are wrapped"
        places = list(itertools.product(*map(range, sizes)))
        at = dict(zip(places, self.cubes, strict=True))
        return {at[place]: at[_cube_above(place, axis, sizes, seam)] for place in places}

    def states(self) -> dict[Switch, dict[int, int]]:
        """What each of the 48 switches joins: the upper fibre of a cube to the lower of another."""
        permutations = [self.permutation(axis) for axis in range(3)]
        return {switch: permutations[switch.axis] for switch in switches()}

    def chip(self, place: Sequence[int]) -> Chip:
        """The chip of the machine that has these coordinates in the slice.

        Raises:
            ValueError: they lie outside it.
        """
        if len(place) != 3 or not all(
            0 <= at < size for at, size in zip(place, self.slice.sizes, strict=True)
        ):
            raise ValueError(f"The slice {self.slice} has no chip at {tuple(place)}.")
        (i, x), (j, y), (k, z) = (divmod(at, CUBE_SIDE) for at in place)
        _, columns, layers = self.slice.cube_sizes
        return self.cubes[(i * columns + j) * layers + k], x, y, z


def machine_states(
    wirings: Sequence[Wiring], fabric: Fabric | None = None
) -> dict[Switch, dict[int, int]]:
    """What each switch of a machine joins while it runs these slices.

    Args:
        wirings: slices that run at the same time.
        fabric: None is the whole machine of 64 cubes.

    Raises:
        ValueError: two slices share a cube, or the machine has not that many cubes.
    """
    machine = fabric or Fabric()
    owners: dict[int, Slice] = {}
    for wiring in wirings:
        for cube in wiring.cubes:
            if cube >= machine.cubes:
                raise ValueError(
                    f"The slice {wiring.slice} uses cube {cube}, and the machine's are 0 to "
                    f"{machine.cubes - 1}."
                )
            if cube in owners:
                raise ValueError(
                    f"The slices {owners[cube]} and {wiring.slice} both use cube {cube}."
                )
            owners[cube] = wiring.slice
    together: dict[Switch, dict[int, int]] = {switch: {} for switch in switches()}
    for wiring in wirings:
        for switch, state in wiring.states().items():
            together[switch].update(state)
    return together


def wired_links(states: Mapping[Switch, Mapping[int, int]]) -> Links:
    """The links between chips that switches make of the cubes they join, those in cubes included.

    Nothing of a slice's shape goes in: that the links are those of its topology is a proof.
    """
    cubes = {cube for state in states.values() for cube in state}
    electrical = {
        frozenset({(cube, *low), (cube, *high)}) for cube in cubes for low, high in _cube_links()
    }
    optical = {
        frozenset({switch.chip(cube, upper=True), switch.chip(other, upper=False)})
        for switch, state in states.items()
        for cube, other in state.items()
    }
    return frozenset(electrical | optical)


def topology_links(wiring: Wiring) -> Links:
    """The links that a slice's topology asks for, between the chips of the machine it is on."""
    topology = wiring.slice.topology
    chips = [wiring.chip(place) for place in topology.coordinates.tolist()]
    return frozenset(
        frozenset({chips[here], chips[there]})
        for here, around in enumerate(topology.neighbours.tolist())
        for there in around
        if there >= 0
    )


def _cube_above(
    place: tuple[int, ...], axis: int, sizes: tuple[int, ...], seam: tuple[int, ...]
) -> tuple[int, ...]:
    """Where the cube over this one along an axis is, across the seam if this is the last."""
    above = list(place)
    above[axis] += 1
    if above[axis] < sizes[axis]:
        return tuple(above)
    above[axis] = 0
    whole = [shift // CUBE_SIDE for shift in seam]  # a twist shifts by n, a multiple of 4
    return tuple((at + shift) % size for at, shift, size in zip(above, whole, sizes, strict=True))


def _cube_links() -> Iterator[tuple[Place, Place]]:
    """The links of the mesh in a cube, each from its lower chip to its upper."""
    for x, y, z in itertools.product(range(CUBE_SIDE), repeat=3):
        for up in ((x + 1, y, z), (x, y + 1, z), (x, y, z + 1)):
            if max(up) < CUBE_SIDE:
                yield (x, y, z), up
