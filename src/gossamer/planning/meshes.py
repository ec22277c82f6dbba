"""The axes x, y and z that a model is partitioned over."""

import dataclasses
import math

from gossamer.planning.collectives import Axis

WRAP_MULTIPLE = 4
"""Axes whose length is a multiple of it have their ends joined."""

_PAPER_SHAPES = {
    8: (2, 2, 2),
    16: (2, 4, 2),
    32: (4, 2, 4),
    64: (4, 4, 4),
    128: (8, 4, 4),
    256: (4, 8, 8),
    512: (8, 8, 8),
}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Chips as a box with axes x, y and z; an axis of one chip is none.

    Weights of two-dimensional layouts have E over x, and F and heads over y and z.

    Example:
        >>> mesh = Mesh.of(2, 4, 2)
        >>> str(mesh), mesh.chips, mesh.x.wrapped, mesh.y.wrapped
        ('2x4x2', 16, False, True)
    """

    x: Axis
    y: Axis
    z: Axis

    @classmethod
    def of(cls, x: int, y: int, z: int) -> "Mesh":
        """A part of a torus: an axis is a ring if its length is a multiple of 4.

        Source: Jouppi et al. 2023, arXiv 2304.01433, section 2: slices are of cubes of 4x4x4.
        """
        return cls(*(Axis(size, wrapped=size % WRAP_MULTIPLE == 0) for size in (x, y, z)))

    @classmethod
    def of_chips(cls, chips: int, torus_axes: int = 3) -> "Mesh":
        """The mesh for so many chips if nothing else is asked for.

        In three dimensions those of Pope et al.'s released program; others are as near to a cube,
        or a square, as factors allow.

        Raises:
            ValueError: no chips.

        Example:
            >>> print(Mesh.of_chips(128), Mesh.of_chips(16, torus_axes=2))
            8x4x4 4x4x1
        """
        if chips < 1:
            raise ValueError(f"A mesh needs 1 chip or more, got {chips}.")
        if torus_axes != 2 and chips in _PAPER_SHAPES:
            return cls.of(*_PAPER_SHAPES[chips])
        divisors = [size for size in range(1, chips + 1) if chips % size == 0]
        if torus_axes == 2:
            x = max(size for size in divisors if size * size <= chips)
            return cls.of(x, chips // x, 1)
        boxes = [
            (x, y, chips // (x * y)) for x in divisors for y in divisors if chips % (x * y) == 0
        ]
        return cls.of(*min(boxes, key=lambda sizes: (sum(sizes), sizes)))

    @classmethod
    def parse(cls, text: str) -> "Mesh":
        """The mesh whose axes are named, such as `4x4x8`; see `of`.

        Raises:
            ValueError: these are not three sizes of 1 or more.

        Example:
            >>> Mesh.parse("4x4x8").chips
            128
        """
        sizes = text.split("x")
        if len(sizes) != 3 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(
                f"A mesh has three sizes of 1 or more, X, Y and Z, such as 4x4x8; got {text!r}."
            )
        return cls.of(*map(int, sizes))

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """x, y and z."""
        return self.x, self.y, self.z

    @property
    def chips(self) -> int:
        """X Y Z."""
        return chips_along(self.axes)

    def __str__(self) -> str:
        return "x".join(str(axis.size) for axis in self.axes)


def chips_along(axes: tuple[Axis, ...]) -> int:
    """How many chips axes have together.

    Example:
        >>> chips_along((Axis(4), Axis(8)))
        32
    """
    return math.prod(axis.size for axis in axes)
