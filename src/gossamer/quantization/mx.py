"""OCP microscaling: small floats, or bytes, that share a power of two."""

import dataclasses
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Int32, Num, UInt8

from gossamer.quantization.formats import Book, Codes, Format
from gossamer.quantization.minifloat import MINIFLOATS, MinifloatName, nearest_minifloat
from gossamer.quantization.rounding import round_steps
from gossamer.quantization.scales import (
    SMALLEST,
    ScaleType,
    floor_exponent,
    power_of_two,
    significand_bits,
)

MXElement: TypeAlias = Literal[MinifloatName, "int8"]
MXRule: TypeAlias = Literal["floor", "ceil", "rceil", "even"]

_INT8_FRACTION = 6
"""Bits of an INT8 element behind the point: it holds multiples of 2^-6 up to 127/64."""


@dataclasses.dataclass(frozen=True)
class MX(Format):
    r"""Elements times a shared power of two X: MXFP8, MXFP6, MXFP4 and MXINT8.

    With the rule of the standard, :math:`X = 2^{\lfloor \log_2 \max |x| \rfloor - e_{max}}`, where
    e_max is the exponent of the element's largest number; what is beyond that number becomes it.
    The other rules choose X so that fewer elements, or none, are clipped:

    - floor: the standard's.
    - ceil: from the next power of two at or above max :math:`|x|`.
    - rceil: the smallest X with which max :math:`|x| / X` is no more than the largest number.
    - even: floor, of max :math:`|x|` rounded to the element's mantissa.

    A block of zeros has scale 1; one with NaN or Inf has scale NaN, so that all of it is NaN. X is
    2^-126 or more, since float32's smaller numbers may count as 0: elements below that are 0.

    Attributes:
        element: e4m3, e5m2, e3m2, e2m3, e2m1, or int8, whose codes are multiples of 2^-6 and
            whose scales are X 2^-6.
        group: original elements of a block, 32 in the standard; None is all of the axis.
        rule: how X is chosen.

    Example:
        >>> block = jnp.zeros((32, 1)).at[:3, 0].set(jnp.array([7.0, -6.9, 1.25]))
        >>> MX("e2m1").quantize(block)[:3].ravel()
        Array([ 6., -6.,  1.], dtype=float32)

    Source: OCP Microscaling Formats (MX) v1.0, section 6.3, as microxcaling implements it; ceil,
    rceil and even as torchao's `mx_formats` names them.
    """

    element: MXElement
    group: int | None = 32
    rule: MXRule = "floor"

    scale: ScaleType = dataclasses.field(default="e8m0", init=False)
    symmetric: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("an element", self.element, (*MINIFLOATS, "int8")),
            ("a rule", self.rule, get_args(MXRule)),
        ):
            if value not in known:
                raise ValueError(f"MX needs {name} in {list(known)}, got {value!r}.")
        self._check()

    def __str__(self) -> str:
        name = "MXINT8" if self.element == "int8" else f"MXFP{self.bits} {self.element.upper()}"
        blocks = "one block an output" if self.group is None else f"blocks of {self.group}"
        return f"{name}, {blocks}" + ("" if self.rule == "floor" else f", {self.rule} scales")

    @property
    def bits(self) -> int:  # type: ignore[override]  # follows from the element
        """Bits of an element."""
        return 8 if self.element == "int8" else MINIFLOATS[self.element].bits

    @property
    def book(self) -> Book | None:
        """The float whose bits are stored; None for INT8."""
        return None if self.element == "int8" else self.element

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""
        most = 127.0 if self.element == "int8" else MINIFLOATS[self.element].largest
        return -most, most

    @property
    def widest_step(self) -> float:
        """Between the largest codes."""
        return 1.0 if self.element == "int8" else MINIFLOATS[self.element].widest_step

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], None]:
        """The scale of each block: X, times 2^-6 for INT8."""
        absmax = jnp.max(jnp.abs(groups), axis=1)
        scale = power_of_two(jnp.maximum(self._exponent(absmax), -126))
        scale = jnp.where(absmax < SMALLEST, 1.0, scale)
        return jnp.where(jnp.isfinite(absmax), scale, jnp.nan), None

    def _exponent(self, absmax: Float[Array, "*dims"]) -> Int32[Array, "*dims"]:
        """That of the scale of a block with this largest element."""
        mantissa_bits, highest = _INT8_FRACTION, _INT8_FRACTION
        if self.element != "int8":
            kind = MINIFLOATS[self.element]
            mantissa_bits, highest = kind.mantissa_bits, kind.highest_exponent
        exponent, rest = floor_exponent(absmax), significand_bits(absmax)
        if self.rule == "ceil":
            exponent = exponent + (rest != 0)
        if self.rule == "rceil":
            exponent = exponent + (rest > significand_bits(jnp.float32(self.ends[1])))
        if self.rule == "even":
            half = np.uint32(1 << (22 - mantissa_bits))
            bits = jax.lax.bitcast_convert_type(absmax, jnp.uint32)
            exponent = floor_exponent(jax.lax.bitcast_convert_type(bits + half, jnp.float32))
        return exponent - highest

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Num[Array, "*dims"]:
        """The elements nearest to values that are divided by their scales."""
        assert zeros is None
        if self.element == "int8":
            return jnp.clip(round_steps(scaled, noise), *self.ends).astype(jnp.int8)
        return nearest_minifloat(scaled, self.element, noise)

    def scale_bytes(self, codes: Codes) -> UInt8[Array, "groups out"]:
        """The standard's E8M0 bytes of X, 127 for 1; 255 is NaN."""
        exponent = floor_exponent(codes.scales)
        byte = exponent + 127 + (_INT8_FRACTION if self.element == "int8" else 0)
        return jnp.where(jnp.isnan(codes.scales), 255, byte).astype(jnp.uint8)
