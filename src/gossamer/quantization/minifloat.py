"""Floats of 4, 6 and 8 bits: what they hold, rounding to them, and their bits.

FP4 and FP6 have no arrays on a CPU, and a byte each everywhere else, so values of all five are held
as float8, which has every value of the smaller ones; their own bits are made when they are packed.

Source: OCP Microscaling Formats (MX) v1.0 and OFP8 v1.0; their bits are those of `ml_dtypes`.
"""

import dataclasses
from typing import Literal, TypeAlias

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float

from gossamer.quantization.rounding import round_steps
from gossamer.quantization.scales import floor_exponent, power_of_two

MinifloatName: TypeAlias = Literal["e4m3", "e5m2", "e3m2", "e2m3", "e2m1"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Minifloat:
    """A small float with subnormal numbers and signed zeros.

    Attributes:
        bits: with its sign.
        mantissa_bits: below the leading one.
        lowest_exponent: of normal numbers; subnormal ones have its step.
        highest_exponent: of the largest number.
        largest: the largest number.
        kind: its type in `ml_dtypes`.
        holder: the float8 that arrays of its values have.
    """

    bits: int
    mantissa_bits: int
    lowest_exponent: int
    highest_exponent: int
    largest: float
    kind: type
    holder: type

    @property
    def widest_step(self) -> float:
        """Between the largest numbers."""
        return 2.0 ** (self.highest_exponent - self.mantissa_bits)


def _minifloat(kind: type, holder: type) -> Minifloat:
    facts = ml_dtypes.finfo(kind)
    largest = float(facts.max)
    return Minifloat(
        bits=facts.bits,
        mantissa_bits=facts.nmant,
        lowest_exponent=facts.minexp,
        highest_exponent=int(np.frexp(largest)[1]) - 1,
        largest=largest,
        kind=kind,
        holder=holder,
    )


MINIFLOATS: dict[MinifloatName, Minifloat] = {
    "e4m3": _minifloat(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
    "e5m2": _minifloat(ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2),
    "e3m2": _minifloat(ml_dtypes.float6_e3m2fn, ml_dtypes.float8_e4m3fn),
    "e2m3": _minifloat(ml_dtypes.float6_e2m3fn, ml_dtypes.float8_e4m3fn),
    "e2m1": _minifloat(ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e4m3fn),
}


def nearest_minifloat(
    x: Float[Array, "*dims"], name: MinifloatName, noise: Float[Array, "*dims"] | None = None
) -> Float[Array, "*dims"]:
    """Rounds to the nearest small float, ties to even; what is beyond the largest becomes it.

    Args:
        x: any numbers; NaN stays NaN.
        name: which float.
        noise: uniform in [0, 1), rounds stochastically: on the step of the value's own exponent.

    Example:
        >>> nearest_minifloat(jnp.array([5.0, -0.2, 9.0]), "e2m1").astype(jnp.float32)
        Array([ 4., -0.,  6.], dtype=float32)
    """
    kind = MINIFLOATS[name]
    # Before the cast: E4M3 casts what is above 464 to NaN, and E5M2 what is above 61440 to Inf.
    clipped = jnp.clip(x.astype(jnp.float32), -kind.largest, kind.largest)
    exponent = jnp.maximum(floor_exponent(clipped), kind.lowest_exponent) - kind.mantissa_bits
    values = round_steps(clipped * power_of_two(-exponent), noise) * power_of_two(exponent)
    # Rounding up may leave the last binade; and NaN has to stay.
    inside = jnp.clip(values, -kind.largest, kind.largest)
    return jnp.where(jnp.isnan(x), jnp.nan, inside).astype(kind.holder)
