"""Eight-bit floats with a scale per output, per group, or per tensor of one output."""

import dataclasses
from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

from gossamer.quantization.formats import Format
from gossamer.quantization.minifloat import MINIFLOATS, MinifloatName, nearest_minifloat
from gossamer.quantization.scales import ScaleType, round_scale

Float8Element: TypeAlias = Literal["e4m3", "e5m2"]


@dataclasses.dataclass(frozen=True)
class Float8(Format):
    """E4M3 or E5M2 with the scale that brings a group's largest element to the largest number.

    Attributes:
        element: e4m3, up to 448, or e5m2, up to 57344.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored; codes are computed with the stored scale.

    Example:
        >>> Float8("e4m3").encode(jnp.array([[1.0], [-0.3], [0.01]])).codes.ravel()
        Array([448, -128, 4.5], dtype=float8_e4m3fn)

    Source: Micikevicius et al. 2022, arXiv 2209.05433, for the two floats.
    """

    element: Float8Element
    group: int | None = None
    scale: ScaleType = "float32"

    bits: int = dataclasses.field(default=8, init=False)
    symmetric: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.element not in get_args(Float8Element):
            raise ValueError(
                f"Float8 needs an element in {list(get_args(Float8Element))}, got {self.element!r}."
            )
        self._check()

    def __str__(self) -> str:
        return f"float8 {self.element.upper()}, {self._scales()}"

    @property
    def book(self) -> MinifloatName:
        """The float whose bits are stored."""
        return self.element

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""
        most = MINIFLOATS[self.element].largest
        return -most, most

    @property
    def widest_step(self) -> float:
        """Between the largest codes."""
        return MINIFLOATS[self.element].widest_step

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], None]:
        """The scale of each group, absmax over the largest number."""
        absmax = jnp.max(jnp.abs(groups), axis=1)
        return round_scale(absmax * np.float32(1 / self.ends[1]), self.scale), None

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Num[Array, "*dims"]:
        """The floats nearest to values that are divided by their scales."""
        assert zeros is None
        return nearest_minifloat(scaled, self.element, noise)
