"""How scales are stored, and the exponents of floats, read off their bits.

`exp2` and `log2` are not exact on every backend, and subnormal numbers may count as 0: everything
here is integer arithmetic on the bits of normal float32 numbers.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt32

ScaleType: TypeAlias = Literal["float32", "bfloat16", "e8m0", "e4m3"]
"""How a scale is stored: float32, bfloat16, a power of two in one byte (OCP E8M0), or E4M3."""

SCALE_BITS: dict[ScaleType, int] = {"float32": 32, "bfloat16": 16, "e8m0": 8, "e4m3": 8}

SMALLEST = float(np.finfo(np.float32).smallest_normal)
"""2^-126: what is below counts as 0, whether the machine flushes it or not."""

_MANTISSA = np.uint32(0x7FFFFF)


def round_scale(scale: Float[Array, "*dims"], kind: ScaleType) -> Float[Array, "*dims"]:
    """Rounds a scale up or to nearest to one its storage type holds; 1 where it is 0 or subnormal.

    bfloat16 and E4M3 round to nearest; E8M0 rounds up to a power of two, so that nothing clips.
    Every result is a positive, normal float32 number, and so is its reciprocal.

    Example:
        >>> round_scale(jnp.array([0.0, 0.3]), "e8m0")
        Array([1. , 0.5], dtype=float32)
    """
    scale = scale.astype(jnp.float32)
    positive = jnp.where(scale < SMALLEST, 1.0, jnp.minimum(scale, 1 / SMALLEST))  # NaN stays
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


def floor_exponent(x: Float[Array, "*dims"]) -> Int32[Array, "*dims"]:
    """The exponent of the largest power of two <= |x|; 128 of NaN and Inf, -127 of 0.

    Exact at and beside every power of two, where a rounded `log2` is not.

    Example:
        >>> floor_exponent(jnp.array([0.75, 8.0, -7.9999995]))
        Array([-1,  3,  2], dtype=int32)
    """
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return ((bits >> 23) & np.uint32(0xFF)).astype(jnp.int32) - 127


def significand_bits(x: Float[Array, "*dims"]) -> UInt32[Array, "*dims"]:
    """The 23 bits below the leading one, which order numbers of one exponent."""
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32) & _MANTISSA


def power_of_two(exponent: Int32[Array, "*dims"]) -> Float[Array, "*dims"]:
    """2 to an exponent of -126 to 127; NaN for 128.

    Example:
        >>> power_of_two(jnp.array([-1, 10]))
        Array([5.000e-01, 1.024e+03], dtype=float32)
    """
    return _decode_e8m0((exponent + 127).astype(jnp.uint32))


def _ceil_exponent(scale: Float[Array, "*dims"]) -> UInt32[Array, "*dims"]:
    """The biased exponent of the smallest power of two >= a normal `scale`, at most 254; NaN: 255.

    So it is the E8M0 byte.
    """
    bits = jax.lax.bitcast_convert_type(scale.astype(jnp.float32), jnp.uint32)
    above = (bits & _MANTISSA) != 0
    exponent = jnp.minimum((bits >> 23) + above.astype(jnp.uint32), np.uint32(254))
    return jnp.where(jnp.isnan(scale), np.uint32(255), exponent)


def _decode_e8m0(byte: UInt32[Array, "*dims"]) -> Float[Array, "*dims"]:
    power = jax.lax.bitcast_convert_type(byte << 23, jnp.float32)
    return jnp.where(byte == 255, jnp.nan, power)
