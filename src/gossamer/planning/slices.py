"""Slices of a TPU v4 machine: which shapes are legal, and which may be twisted.

A machine is built of cubes of 4x4x4 chips. A slice is a box of whole cubes, taken from anywhere in
the machine and joined by optical switches, or a part of one cube, then without wraparound.

Source: Jouppi et al. 2023, arXiv 2304.01433, section 2 and table 2. Parts of a cube are
those that table 2 lists; no rule for them was found.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable

from gossamer.planning.topology import Topology, mesh, torus, twisted_torus

CUBE_SIDE = 4
"""Chips along each edge of a cube."""
CUBE_CHIPS = CUBE_SIDE**3
MACHINE_CUBES = 64
"""Cubes of a whole machine, 4096 chips."""
CUBE_PARTS = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2), (2, 2, 4), (2, 4, 4))
"""Shapes smaller than a cube."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that a job gets.

    Attributes:
        sizes: chips along each axis, in rising order: all multiples of 4, or a part of a cube.
        twisted: whether the seams of short axes shift long ones; n x n x 2n and n x 2n x 2n only.

    Raises:
        ValueError: there is no such slice; those near it are named.

    Example:
        >>> print(Slice((4, 4, 8), twisted=True), Slice((4, 4, 8), twisted=True).chips)
        4x4x8_T 128
    """

    sizes: tuple[int, int, int]
    twisted: bool = False

    def __post_init__(self) -> None:
        name = "x".join(map(str, self.sizes))
        if min(self.sizes) < 1:
            raise ValueError(f"A slice needs 1 chip or more along each axis, got {name}.")
        if self.sizes != tuple(sorted(self.sizes)):
            ordered = "x".join(map(str, sorted(self.sizes)))
            raise ValueError(f"A slice is named with rising sizes: {ordered} instead of {name}.")
        if not _is_legal(self.sizes):
            raise ValueError(
                f"There is no slice {name}: its sizes need to be multiples of {CUBE_SIDE}, or a "
                f"part of a cube. Legal near it are {_names(_near(self.sizes))}."
            )
        if self.twisted and not self.twistable:
            raise ValueError(
                f"The slice {name} cannot be twisted: only n x n x 2n and n x 2n x 2n with n a "
                f"multiple of {CUBE_SIDE} can. Near it are {_names(_near_twisted(self.chips))}."
            )

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes)) + ("_T" if self.twisted else "")

    @property
    def chips(self) -> int:
        """How many it has."""
        return math.prod(self.sizes)

    @property
    def cubes(self) -> int:
        """Cubes that it is made of; 0 for a part of one."""
        return self.chips // CUBE_CHIPS

    @property
    def cube_sizes(self) -> tuple[int, int, int]:
        """Cubes along each axis.

        Raises:
            ValueError: it is a part of one cube.
        """
        if not self.cubes:
            raise ValueError(f"The slice {self} is smaller than a cube.")
        x, y, z = self.sizes
        return x // CUBE_SIDE, y // CUBE_SIDE, z // CUBE_SIDE

    @property
    def twistable(self) -> bool:
        """Whether it may be twisted: some axes n long and the others 2n, n a multiple of 4."""
        short, _, long = self.sizes
        return short >= CUBE_SIDE and long == 2 * short and set(self.sizes) == {short, long}

    @property
    def topology(self) -> Topology:
        """How its chips are linked; parts of a cube have no wraparound."""
        if not self.cubes:
            return mesh(self.sizes)
        return twisted_torus(self.sizes) if self.twisted else torus(self.sizes)


def parse_slice(name: str) -> Slice:
    """The slice of a name: three sizes, then `_T` if it is twisted; `_NT` says that it is not.

    Raises:
        ValueError: it is no such name, or there is no such slice; those near it are named.

    Example:
        >>> parse_slice("4x8x8_T").topology.diameter
        6
    """
    parts = re.fullmatch(r"(\d+)x(\d+)x(\d+)(_T|_NT)?", name.strip(), re.ASCII)
    if parts is None:
        raise ValueError(
            f"A slice is named like 4x4x8, or 4x4x8_T if it is twisted; got {name!r}. "
            f"See slices_of(chips) for those of so many chips."
        )
    x, y, z, suffix = parts.groups()
    return Slice((int(x), int(y), int(z)), twisted=suffix == "_T")


def slices_of(chips: int) -> tuple[Slice, ...]:
    """All slices of so many chips, the longest first, each twisted one after the same untwisted.

    Raises:
        ValueError: there are none; the numbers of chips next to it are named.

    Example:
        >>> print(*slices_of(512))
        4x4x32 4x8x16 8x8x8
        >>> print(*slices_of(128))
        4x4x8 4x4x8_T
    """
    shapes = _shapes_of(chips) if chips > 0 else ()
    if not shapes:
        below, above = _counts_around(chips)
        fewer = f"{below} and " if below else ""
        raise ValueError(f"No slice has {chips} chips; next to it are {fewer}{above}.")
    plain = [Slice(shape) for shape in shapes]
    return tuple(
        Slice(each.sizes, twisted=twisted)
        for each in plain
        for twisted in ((False, True) if each.twistable else (False,))
    )


def all_slices(max_chips: int = MACHINE_CUBES * CUBE_CHIPS) -> tuple[Slice, ...]:
    """All slices of a machine, from the smallest to the largest.

    Args:
        max_chips: that one may have.

    Raises:
        ValueError: there is none so small.
    """
    if max_chips < 1:
        raise ValueError(f"A slice has 1 chip or more, got at most {max_chips}.")
    counts = {math.prod(shape) for shape in CUBE_PARTS} | set(
        range(CUBE_CHIPS, max_chips + 1, CUBE_CHIPS)
    )
    return tuple(
        each for chips in sorted(counts) if chips <= max_chips for each in slices_of(chips)
    )


def _is_legal(sizes: tuple[int, ...]) -> bool:
    return sizes in CUBE_PARTS or all(size % CUBE_SIDE == 0 for size in sizes)


def _shapes_of(chips: int) -> tuple[tuple[int, int, int], ...]:
    if chips % CUBE_CHIPS:
        return tuple(shape for shape in CUBE_PARTS if math.prod(shape) == chips)
    cubes = chips // CUBE_CHIPS
    return tuple(
        (CUBE_SIDE * x, CUBE_SIDE * y, CUBE_SIDE * (cubes // (x * y)))
        for x in range(1, round(cubes ** (1 / 3)) + 1)
        for y in range(x, math.isqrt(cubes // x) + 1)
        if cubes % (x * y) == 0
    )


def _counts_around(chips: int) -> tuple[int, int]:
    """The next numbers of chips that slices have, below this, 0 for none, and above."""
    cubes = max(0, chips // CUBE_CHIPS)
    counts = {CUBE_CHIPS * n for n in (cubes - 1, cubes, cubes + 1) if n > 0}
    counts |= {math.prod(shape) for shape in CUBE_PARTS}
    below = max((count for count in counts if count < chips), default=0)
    return below, min(count for count in counts if count > chips)


def _near(sizes: tuple[int, int, int]) -> list[Slice]:
    """The legal slices that each size is rounded to, up or down."""
    if max(sizes) <= CUBE_SIDE:
        far = {
            shape: sum(abs(a - b) for a, b in zip(shape, sizes, strict=True))
            for shape in (*CUBE_PARTS, (CUBE_SIDE,) * 3)
        }
        shapes = {shape for shape, distance in far.items() if distance == min(far.values())}
    else:
        rounded = [
            {max(CUBE_SIDE, size // CUBE_SIDE * CUBE_SIDE), -(-size // CUBE_SIDE) * CUBE_SIDE}
            for size in sizes
        ]
        shapes = {tuple(sorted(shape)) for shape in itertools.product(*rounded)}
    return [Slice((x, y, z)) for x, y, z in sorted(shapes)]


def _near_twisted(chips: int) -> list[Slice]:
    """The largest twisted slice with fewer chips, if any, and the smallest with as many or more."""
    short = [CUBE_SIDE * n for n in range(1, 2 + round((chips / CUBE_CHIPS) ** (1 / 3)))]
    both = [Slice((n, m, 2 * n), twisted=True) for n in short for m in (n, 2 * n)]
    both.sort(key=lambda each: each.chips)
    fewer = [each for each in both if each.chips < chips]
    more = [each for each in both if each.chips >= chips]
    return [*fewer[-1:], *more[:1]]


def _names(slices: Iterable[Slice]) -> str:
    return ", ".join(map(str, slices))
