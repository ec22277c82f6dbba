"""Codes of 4 bits that stand for sixteen numbers of choice, such as those of E2M1."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8

from gossamer.quantization.formats import Format
from gossamer.quantization.scales import ScaleType, round_scale

E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""The values of OCP's FP4 in the order of its codes, doubled to be integers: 0.5 is 1."""


@dataclasses.dataclass(frozen=True)
class Codebook(Format):
    """Sixteen integers times a scale, the least one that keeps a group within them.

    Attributes:
        values: what the codes 0 to 15 stand for: integers of -127 to 127, 0 first, some on either
            side of it. A value that is there twice is written as its first code.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored; codes are computed with the stored scale.

    Example:
        >>> Codebook(E2M1).encode(jnp.array([[6.0], [2.4], [-0.7]])).codes.ravel()
        Array([12,  4, -1], dtype=int8)
    """

    values: tuple[int, ...]
    group: int | None = None
    scale: ScaleType = "float32"

    bits: int = dataclasses.field(default=4, init=False)
    symmetric: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        low, high = min(self.values, default=0), max(self.values, default=0)
        if len(self.values) != 16 or not -127 <= low < 0 < high <= 127 or self.values[0] != 0:
            raise ValueError(
                "Codebook needs 16 values of -127 to 127, 0 first and some on either side of it, "
                f"got values={self.values}."
            )
        self._check()

    def __str__(self) -> str:
        return f"{self.name}, {self._scales()}"

    @property
    def name(self) -> str:
        """The book's, if it has one."""
        return "E2M1" if self.values == E2M1 else "4-bit codebook"

    @property
    def book(self) -> tuple[int, ...]:
        """The codes that 4 bits stand for."""
        return self.values

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], None]:
        """Chooses the scale of each group: the least with which no element lies outside."""
        above = jnp.max(groups, axis=1) * np.float32(1 / max(self.values))
        below = jnp.min(groups, axis=1) * np.float32(1 / min(self.values))
        return round_scale(jnp.maximum(above, below), self.scale), None

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of the book."""
        return float(min(self.values)), float(max(self.values))

    @property
    def widest_step(self) -> float:
        """The largest distance of two neighbours in the book."""
        ordered = sorted(set(self.values))
        return float(max(high - low for low, high in itertools.pairwise(ordered)))

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Int8[Array, "*dims"]:
        """The nearest values of the book; of two, the one an even number of steps from 0.

        With E2M1 that is the one with an even mantissa.

        Example:
            >>> Codebook(E2M1).nearest(jnp.array([0.5, 2.5, 5.0, -7.0]))
            Array([ 0,  2,  4, -8], dtype=int8)
        """
        assert zeros is None
        ordered = sorted(set(self.values))
        zero = ordered.index(0)
        codes = jnp.full(scaled.shape, ordered[0], jnp.int32)
        for index, (low, high) in enumerate(itertools.pairwise(ordered), start=1):
            if noise is None:
                middle = np.float32((low + high) / 2)
                beyond = scaled > middle if (index - zero) % 2 else scaled >= middle
            else:
                part = (scaled - low) * np.float32(1 / (high - low))
                beyond = part + noise >= 1 if low >= 0 else 1 - part + noise < 1
            codes = codes + jnp.where(beyond, high - low, 0)
        return codes.astype(jnp.int8)
