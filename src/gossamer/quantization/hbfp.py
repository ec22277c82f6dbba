"""Hybrid block floating point: integers that share an exponent."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from gossamer.quantization.formats import Format
from gossamer.quantization.rounding import round_steps
from gossamer.quantization.scales import (
    SMALLEST,
    ScaleType,
    floor_exponent,
    power_of_two,
    significand_bits,
)


@dataclasses.dataclass(frozen=True)
class HBFP(Format):
    r"""Integers of `bits` times a power of two, the smallest above the block's largest element.

    With :math:`e = \lceil \log_2 \max |x| \rceil` and m = bits - 1, codes are multiples of
    :math:`2^{e-m}` clipped to :math:`\pm (2^m - 1)`: an absmax that is a power of two is clipped.
    A block of zeros has scale 1. Exponents are stored as E8M0 bytes of the step, so the step is
    2^-126 or more, and elements below that are 0.

    Attributes:
        bits: of a mantissa with its sign, 2 to 8: HBFP8, HBFP6 and HBFP4 of the papers.
        group: original elements of a block; None is all of the reduction axis.

    Example:
        >>> HBFP(8).encode(jnp.zeros((64, 1)).at[:3, 0].set(jnp.array([0.9, -0.45, 0.1]))).codes[:3]
        Array([[115],
               [-58],
               [ 13]], dtype=int8)

    Source: Drumond et al. 2018, arXiv 1804.01526; the quantizer in the code of Harma et al. 2024,
    arXiv 2405.20935, with nearest rounding. That code adds 1e-8 before the logarithm, which gives
    some powers of two below 0.25 a larger exponent; here it is read off the bits.
    """

    bits: int
    group: int | None = 64

    scale: ScaleType = dataclasses.field(default="e8m0", init=False)
    symmetric: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"HBFP needs 2 <= bits <= 8, got bits={self.bits}.")
        self._check()

    def __str__(self) -> str:
        blocks = "one block an output" if self.group is None else f"blocks of {self.group}"
        return f"HBFP{self.bits}, {blocks}"

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""
        most = 2.0 ** (self.bits - 1) - 1
        return -most, most

    @property
    def widest_step(self) -> float:
        """1: codes are whole numbers."""
        return 1.0

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], None]:
        """The step of each block."""
        absmax = jnp.max(jnp.abs(groups), axis=1)
        exponent = floor_exponent(absmax) + (significand_bits(absmax) != 0)
        step = power_of_two(jnp.maximum(exponent - (self.bits - 1), -126))
        step = jnp.where(absmax < SMALLEST, 1.0, step)
        return jnp.where(jnp.isfinite(absmax), step, jnp.nan), None

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Int8[Array, "*dims"]:
        """The codes of values that are divided by their steps: rounded, then clipped."""
        assert zeros is None
        return jnp.clip(round_steps(scaled, noise), *self.ends).astype(jnp.int8)
