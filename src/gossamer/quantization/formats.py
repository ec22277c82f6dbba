"""Integer formats: the one quantizer that training, post-training, packing and kernels share.

Conventions: symmetric codes lie in `[-qmax, qmax]` with `qmax = 2^(bits-1) - 1`; a scale is
absmax / qmax, 1 where absmax is 0; rounding is half to even; clipping comes before the cast.

Every division is written as a product with a float32 reciprocal: XLA turns a division by a constant
or by a broadcast array into one, and any other not, so that the same weight could get other codes
in another program.
"""

import abc
import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, UInt32

ScaleType: TypeAlias = Literal["float32", "bfloat16", "e8m0", "e4m3"]
"""How a scale is stored: float32, bfloat16, a power of two in one byte (OCP E8M0), or E4M3."""

SCALE_BITS: dict[ScaleType, int] = {"float32": 32, "bfloat16": 16, "e8m0": 8, "e4m3": 8}


class Codes(NamedTuple):
    """Integers with their scales: the value is `(codes - zeros) * scales`, a group at a time.

    `scales` are float32 numbers that their storage type holds exactly. `zeros` are there for
    asymmetric formats only. Groups run along `in`, in order, and have the length in / groups.
    """

    codes: Int8[Array, "in out"]
    scales: Float[Array, "groups out"]
    zeros: Int8[Array, "groups out"] | None = None

    def decode(self) -> Float[Array, "in out"]:
        """The values, float32."""
        groups, out = self.scales.shape
        codes = self.codes.reshape(groups, -1, out).astype(jnp.float32)
        if self.zeros is not None:
            codes = codes - self.zeros[:, None, :].astype(jnp.float32)
        return (codes * self.scales[:, None, :]).reshape(self.codes.shape)


class Format(abc.ABC):
    """Codes with a scale per output, or per group of elements along `in`.

    Attributes:
        bits: bits that a code is stored in.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored.
        symmetric: False if every scale comes with a zero point.
    """

    bits: int
    group: int | None
    scale: ScaleType
    symmetric: bool

    @property
    def book(self) -> tuple[int, ...] | None:
        """The codes that their bits stand for, by number; None where that is two's complement."""
        return None

    def _check(self) -> None:
        name = type(self).__name__
        if self.group is not None and self.group < 1:
            raise ValueError(f"{name} needs a group of at least 1 element, got group={self.group}.")
        if self.scale not in SCALE_BITS:
            raise ValueError(
                f"{name} needs a scale in {list(SCALE_BITS)}, got scale={self.scale!r}."
            )

    def _scales(self) -> str:
        group = "per channel" if self.group is None else f"groups of {self.group}"
        return f"{group}, {self.scale} scales"

    def groups(self, size: int) -> int:
        """How many groups an axis of `size` elements has.

        Raises:
            ValueError: `group` does not divide `size`.
        """
        if self.group is None:
            return 1
        if size % self.group:
            raise ValueError(
                f"{self} needs the reduction axis to be a multiple of {self.group}, got {size}; "
                "choose a group that divides it, or None for a scale per output."
            )
        return size // self.group

    def bits_per_element(self, size: int) -> float:
        """Bits of a dense element with its share of scale and zero point, for an axis of `size`."""
        per_group = SCALE_BITS[self.scale] + (0 if self.symmetric else 8)
        return self.bits + per_group * self.groups(size) / size

    @abc.abstractmethod
    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]:
        """Chooses the scale, and the zero point if there are any, of each group."""

    @abc.abstractmethod
    def nearest(
        self, scaled: Float[Array, "*dims"], zeros: Int8[Array, "*#dims"] | None = None
    ) -> Int8[Array, "*dims"]:
        """The codes of values that are divided by their scales."""

    def round(
        self,
        values: Float[Array, "*dims"],
        scales: Float[Array, "*#dims"],
        zeros: Int8[Array, "*#dims"] | None,
    ) -> Int8[Array, "*dims"]:
        """The codes of `values` on a given grid."""
        return self.nearest(values * (1 / scales), zeros)

    def encode(self, kernel: Float[Array, "in out"]) -> Codes:
        """Rounds each element to the nearest point of its group's grid.

        Args:
            kernel: finite values, any float dtype; computed in float32.

        Raises:
            ValueError: `group` does not divide the reduction axis.
        """
        groups = self.groups(kernel.shape[0])
        blocks = kernel.astype(jnp.float32).reshape(groups, -1, kernel.shape[1])
        scales, zeros = self.grid(blocks)
        codes = self.round(blocks, scales[:, None, :], None if zeros is None else zeros[:, None, :])
        return Codes(codes.reshape(kernel.shape), scales, zeros)


@dataclasses.dataclass(frozen=True)
class Int(Format):
    """Integers of `bits` with a scale per output, or per `group` of elements along `in`.

    Attributes:
        bits: bits of a code, 2 to 8.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored; codes are computed with the stored scale.
        symmetric: False adds an integer zero point per scale and fits the grid to minimum and
            maximum of the group, both widened to include 0, so that 0 stays exact.

    Example:
        >>> Int(4).encode(jnp.array([[7.0], [1.4], [-0.6]])).codes.ravel()
        Array([ 7,  1, -1], dtype=int8)
    """

    bits: int
    group: int | None = None
    scale: ScaleType = "float32"
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"Int needs 2 <= bits <= 8, got bits={self.bits}.")
        self._check()

    def __str__(self) -> str:
        grid = "" if self.symmetric else " asymmetric"
        return f"int{self.bits}{grid}, {self._scales()}"

    @property
    def qmax(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1

    @property
    def qmin(self) -> int:
        """The lowest code: -qmax, or one lower where a zero point shifts the grid."""
        return -self.qmax if self.symmetric else -self.qmax - 1

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]:
        """Chooses the scale, and the zero point of an asymmetric grid, of each group.

        Source: symmetric, absmax / qmax. Asymmetric, the min/max grid of Frantar et al. 2022
        (arXiv 2210.17323, released code) with codes shifted to be signed.
        """
        if self.symmetric:
            absmax = jnp.max(jnp.abs(groups), axis=1)
            return round_scale(absmax * np.float32(1 / self.qmax), self.scale), None
        low = jnp.minimum(jnp.min(groups, axis=1), 0)
        high = jnp.maximum(jnp.max(groups, axis=1), 0)
        scales = round_scale((high - low) * np.float32(1 / (2**self.bits - 1)), self.scale)
        zeros = jnp.clip(jnp.round(-low * (1 / scales)) + self.qmin, self.qmin, self.qmax)
        return scales, zeros.astype(jnp.int8)

    def nearest(
        self, scaled: Float[Array, "*dims"], zeros: Int8[Array, "*#dims"] | None = None
    ) -> Int8[Array, "*dims"]:
        """The codes of values that are divided by their scales: half to even, clipped, then cast.

        Example:
            >>> Int(4).nearest(jnp.array([0.5, 1.5, -9.0]))
            Array([ 0,  2, -7], dtype=int8)
        """
        codes = jnp.round(scaled)
        if zeros is not None:
            codes = codes + zeros
        return jnp.clip(codes, self.qmin, self.qmax).astype(jnp.int8)


def round_scale(scale: Float[Array, "*dims"], kind: ScaleType) -> Float[Array, "*dims"]:
    """Rounds a scale up or to nearest to one its storage type holds; 1 where it is 0 or subnormal.

    bfloat16 and E4M3 round to nearest; E8M0 rounds up to a power of two, so that nothing clips.
    Every result is a positive, normal float32 number, and so is its reciprocal.

    Example:
        >>> round_scale(jnp.array([0.0, 0.3]), "e8m0")
        Array([1. , 0.5], dtype=float32)
    """
    scale = scale.astype(jnp.float32)
    # What is below the normal numbers counts as 0 whether the machine flushes it or not, so that
    # the same inputs give the same codes everywhere.
    smallest = jnp.finfo(jnp.float32).smallest_normal
    positive = jnp.where(scale < smallest, 1.0, jnp.minimum(scale, 1 / smallest))  # NaN stays
    if kind == "bfloat16":
        # Not a cast to bfloat16 and back, which XLA may simplify away inside a larger program.
        return jax.lax.reduce_precision(positive, exponent_bits=8, mantissa_bits=7)
    if kind == "e8m0":
        return _decode_e8m0(_ceil_exponent(positive))
    if kind == "e4m3":
        # 2^-9 is the smallest positive E4M3 number and 448 the largest.
        clipped = jnp.clip(positive, 2.0**-9, 448.0)
        return clipped.astype(jnp.float8_e4m3fn).astype(jnp.float32)
    return positive


def scale_to_bytes(scale: Float[Array, "*dims"], kind: ScaleType) -> Array:
    """The stored form of scales: float32, bfloat16, or uint8 for the one-byte kinds.

    `scale` holds only numbers that the kind represents, as `round_scale` returns them.
    """
    if kind == "e8m0":
        return _ceil_exponent(scale).astype(jnp.uint8)
    if kind == "e4m3":
        return jax.lax.bitcast_convert_type(scale.astype(jnp.float8_e4m3fn), jnp.uint8)
    return scale.astype(jnp.dtype(kind))


def scale_from_bytes(stored: Array, kind: ScaleType) -> Float[Array, "*dims"]:
    """The float32 scales that `scale_to_bytes` stored."""
    if kind == "e8m0":
        return _decode_e8m0(stored.astype(jnp.uint32))
    if kind == "e4m3":
        return jax.lax.bitcast_convert_type(stored, jnp.float8_e4m3fn).astype(jnp.float32)
    return stored.astype(jnp.float32)


def _ceil_exponent(scale: Float[Array, "*dims"]) -> UInt32[Array, "*dims"]:
    """The biased exponent of the smallest power of two >= a normal `scale`, at most 254.

    Read off the bits: `exp2` and `log2` are not exact on every backend.
    """
    bits = jax.lax.bitcast_convert_type(scale.astype(jnp.float32), jnp.uint32)
    above = (bits & np.uint32(0x7FFFFF)) != 0
    return jnp.minimum((bits >> 23) + above.astype(jnp.uint32), np.uint32(254))


def _decode_e8m0(exponent: UInt32[Array, "*dims"]) -> Float[Array, "*dims"]:
    return jax.lax.bitcast_convert_type(exponent << 23, jnp.float32)
