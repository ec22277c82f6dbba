"""Packing: codes or float values, a pattern and a mask become planes."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num, Shaped

from gossamer.packing.books import fields_of, strange
from gossamer.packing.groups import GROUP_SIZES, compress, fill, index_bits, positions
from gossamer.packing.layout import LANES, lane_bytes, pack_fields
from gossamer.packing.packed import Packed
from gossamer.quantization import Codes, Format
from gossamer.quantization.scales import round_scale, scale_to_bytes
from gossamer.sparsity import NM, Pattern

_FLOAT_BITS = 32


def why_dense(pattern: Pattern, format: Format | None) -> str | None:
    """Says in words why kernels of this pattern and format are stored dense; None: they are not.

    Args:
        pattern: which weights are kept.
        format: the format of their codes; None for float32 values.

    Example:
        >>> from gossamer.quantization import Int
        >>> why_dense(NM(3, 4), Int(4))
        '3:4 would take 16 bits for 4 weights, dense takes 16'
        >>> why_dense(NM(2, 4), Int(4)) is None
        True
    """
    if not isinstance(pattern, NM):
        return f"{pattern} keeps no fixed number of every group"
    if pattern.m not in GROUP_SIZES:
        return f"the layout has groups of {GROUP_SIZES}, not of {pattern.m}"
    if format is not None and not format.symmetric:
        return "codes with zero points are stored dense"
    bits = _FLOAT_BITS if format is None else format.bits
    where = index_bits(pattern)
    sparse = pattern.n * bits + (pattern.m if where is None else pattern.n * where)
    dense = pattern.m * bits
    if sparse < dense:
        return None
    return f"{pattern} would take {sparse} bits for {pattern.m} weights, dense takes {dense}"


def check_packable(shape: tuple[int, int], pattern: Pattern | None, format: Format | None) -> None:
    """Raises what `pack` or `pack_floats` would raise for this shape, before there is anything.

    Args:
        shape: `(in, out)`.
        pattern: which weights are kept; None keeps all.
        format: the format of their codes; None for float values.

    Raises:
        ValueError: the fields of an output would not fill whole bytes.
    """
    stored = pattern if isinstance(pattern, NM) and why_dense(pattern, format) is None else None
    _check_bytes(shape, None if format is None else format.bits, stored)


def stored_bytes(
    shape: tuple[int, int],
    pattern: Pattern | None,
    format: Format | None,
    *,
    float_bits: Literal[16, 32] = _FLOAT_BITS,
) -> int:
    """Bytes of a kernel `(in, out)` as it would be packed; nothing is computed.

    Args:
        shape: `(in, out)`.
        pattern: which weights are kept; None keeps all.
        format: the format of their codes; None for float values.
        float_bits: of a float value: of float32, or of bfloat16.

    Raises:
        ValueError: as `pack` and `pack_floats` do.

    Example:
        >>> from gossamer.quantization import Int
        >>> stored_bytes((64, 16), NM(2, 4), Int(4))  # 3 bits a weight and a scale per output
        448
    """
    rows, columns = shape
    sparse = pattern if isinstance(pattern, NM) and why_dense(pattern, format) is None else None
    if sparse is None and format is None:
        return float_bits // 8 * rows * columns
    if sparse is not None:
        sparse.check(shape, 0)
    _check_bytes(shape, None if format is None else format.bits, sparse)
    lanes = columns + -columns % LANES
    bits = (float_bits if format is None else format.bits) * rows
    if sparse is not None:
        where = index_bits(sparse)
        kept = rows // sparse.m * sparse.n
        bits = bits // sparse.m * sparse.n + (rows if where is None else where * kept)
    scales = 0.0
    if format is not None:  # and zero points, and the tensor's scale
        scales = (format.bits_per_element(rows, lanes) - format.bits) * rows * lanes
    return (bits * lanes + round(scales)) // 8


def pack(
    codes: Codes,
    format: Format,
    pattern: NM | None = None,
    mask: Bool[Array, "in out"] | None = None,
    activations: Format | None = None,
) -> Packed:
    """Packs codes; sparse where the pattern makes that smaller, else dense (see `why_dense`).

    Runs under `jit` and `vmap`; values are checked only where they are known.

    Args:
        codes: codes, scales and zero points as `format.encode` returns them.
        format: the format of `codes`.
        pattern: keeps at most N of every M along `in`; None stores every weight.
        mask: True where a weight is kept; without one, where its code is not 0. Codes of weights
            that are not kept are dropped: they come back as 0, or as the group's zero point.
        activations: the format in which inputs are multiplied; None for the decoded weights.

    Raises:
        ValueError: the shape does not divide into groups or whole bytes; a group keeps more than
            N; a code or a scale is not one of `format`.

    Example:
        >>> from gossamer.quantization import Int
        >>> codes = Int(4).encode(jnp.eye(8, 16))
        >>> packed = pack(codes, Int(4), NM(2, 4))
        >>> packed.values.nbytes, packed.indices.nbytes  # 4 kept weights for each of 16 outputs
        (32, 16)
    """
    shape = codes.codes.shape
    _check_codes(codes, format)
    if pattern is None or why_dense(pattern, format) is not None:
        codes = codes if mask is None else codes.masked(mask)
        pattern = mask = None
    else:
        mask = codes.codes != 0 if mask is None else mask
        _check_mask(mask, pattern, shape)
    _check_bytes(shape, format.bits, pattern)
    values, indices, scales, zeros = _pack_codes(codes, mask, format, pattern)
    return Packed(
        values=values,
        indices=indices,
        scales=scales,
        zeros=zeros,
        bits=format.bits,
        pattern=pattern,
        scale=format.scale,
        padding=-shape[1] % LANES,
        activations=activations,
        book=format.book,
        tensor_scale=codes.tensor_scale,
    )


def pack_floats(
    kernel: Float[Array, "in out"], pattern: NM, mask: Bool[Array, "in out"] | None = None
) -> Packed:
    """Packs the kept values of a pruned kernel as they are, float32 or bfloat16.

    Args:
        kernel: the values.
        pattern: keeps at most N of every M along `in`.
        mask: True where a weight is kept; without one, where it is not 0.

    Raises:
        ValueError: the pattern saves nothing; the shape does not divide into groups or whole
            bytes; a group keeps more than N; a value is NaN or Inf.

    Example:
        >>> packed = pack_floats(jnp.eye(16), NM(1, 4))
        >>> packed.shape, packed.values.shape
        ((16, 16), (1, 4, 16))
    """
    if (reason := why_dense(pattern, None)) is not None:
        raise ValueError(f"Kernel {kernel.shape} stays a plain array: {reason}.")
    if _known(kernel) and not bool(jnp.isfinite(kernel).all()):
        raise ValueError(f"Kernel {kernel.shape} holds NaN or Inf; mend it before packing.")
    mask = kernel != 0 if mask is None else mask
    _check_mask(mask, pattern, kernel.shape)
    _check_bytes(kernel.shape, None, pattern)
    dtype = jnp.bfloat16 if kernel.dtype == jnp.bfloat16 else jnp.float32
    values, indices = _pack_kept(jnp.asarray(kernel, dtype), mask, pattern)
    padding = -kernel.shape[1] % LANES
    return Packed(values, indices, None, None, None, pattern, None, padding)


@functools.partial(jax.jit, static_argnames=("format", "pattern"))
def _pack_codes(
    codes: Codes, mask: Array | None, format: Format, pattern: NM | None
) -> tuple[Array, Array | None, Array, Array | None]:
    fields = jax.lax.bitcast_convert_type(codes.codes, jnp.uint8)
    if format.book is not None:
        fields = jnp.asarray(fields_of(format.book))[fields]
    if pattern is None:
        kept, indices = _tiles(fields, 0), None
    else:
        assert mask is not None
        kept, indices = _pack_kept(fields, mask, pattern)
    values = pack_fields(kept, format.bits)
    scales = scale_to_bytes(_tiles(codes.scales, 1), format.scale)
    zeros = None if codes.zeros is None else _tiles(codes.zeros, 0)
    return values, indices, scales, zeros


@functools.partial(jax.jit, static_argnames=("pattern",))
def _pack_kept(
    values: Num[Array, "in out"], mask: Bool[Array, "in out"], pattern: NM
) -> tuple[Array, Array]:
    """The kept values `[tiles, kept, 16]` and the plane of their positions."""
    values = _tiles(jnp.where(mask, values, jnp.zeros((), values.dtype)), 0)
    bitmap = fill(_tiles(mask, 0), pattern)
    bits = index_bits(pattern)
    if bits is None:
        indices = pack_fields(bitmap, pattern.m, order="bitmap")
    else:
        indices = pack_fields(positions(bitmap, pattern), bits)
    return compress(values, bitmap, pattern), indices


def _tiles(rows: Shaped[Array, "rows out"], padding: int) -> Shaped[Array, "tiles rows 16"]:
    """Cuts the outputs into tiles; lanes that are left over hold `padding`."""
    missing = -rows.shape[1] % LANES
    padded = jnp.pad(rows, ((0, 0), (0, missing)), constant_values=padding)
    return jnp.swapaxes(padded.reshape(rows.shape[0], -1, LANES), 0, 1)


def _known(*arrays: object) -> bool:
    """Whether values can be looked at: not while tracing."""
    return not any(isinstance(array, Tracer) for array in arrays)


def _check_codes(codes: Codes, format: Format) -> None:
    shape, groups = codes.codes.shape, codes.scales.shape[0]
    if groups != format.groups(shape[0]) or codes.scales.shape[1] != shape[1]:
        raise ValueError(
            f"{format} gives codes {shape} scales {(format.groups(shape[0]), shape[1])}, got "
            f"{codes.scales.shape}; encode with the format that is given to pack."
        )
    if (codes.zeros is None) != format.symmetric:
        raise ValueError(
            f"Codes {shape} {'lack' if codes.zeros is None else 'have'} zero points, which does "
            f"not suit {format}."
        )
    if codes.codes.dtype != format.code_dtype:
        raise ValueError(
            f"{format} has codes of {format.code_dtype}, got {codes.codes.dtype}; encode with "
            "the format that is given to pack."
        )
    if not _known(codes.codes, codes.scales) or not codes.codes.size:
        return
    _check_range(codes, format)
    exact = (round_scale(codes.scales, format.scale) == codes.scales) & jnp.isfinite(codes.scales)
    if not bool(exact.all()):
        wrong = float(codes.scales[~exact][0])
        raise ValueError(
            f"Codes {shape} have a scale {wrong}, which is no positive finite {format.scale} "
            "number; encode with the format that is given to pack."
        )


def _check_range(codes: Codes, format: Format) -> None:
    shape = codes.codes.shape
    if format.book is not None:
        if (odd := strange(np.asarray(codes.codes), format.book)).size:
            raise ValueError(f"Codes {shape} have {odd[0]}, which is no value of {format}.")
        return
    low, high = int(jnp.min(codes.codes)), int(jnp.max(codes.codes))
    if low < -(2 ** (format.bits - 1)) or high >= 2 ** (format.bits - 1):
        raise ValueError(
            f"Codes {shape} go from {low} to {high}, which {format.bits} bits hold not."
        )


def _check_mask(mask: Array, pattern: NM, shape: tuple[int, ...]) -> None:
    pattern.check(shape, 0)
    if mask.shape != shape:
        raise ValueError(f"A mask {mask.shape} does not suit a kernel {shape}.")
    if not _known(mask) or not mask.size:
        return
    counts = np.asarray(mask).reshape(-1, pattern.m, shape[1]).sum(axis=1)
    if counts.max() > pattern.n:
        group, output = np.unravel_index(counts.argmax(), counts.shape)
        raise ValueError(
            f"{pattern} keeps at most {pattern.n} of {pattern.m}, but {counts.max()} are kept in "
            f"group {group} of output {output} of kernel {shape}; prune it with this pattern."
        )


def _check_bytes(shape: tuple[int, ...], bits: int | None, pattern: NM | None) -> None:
    """Raises where an output's fields do not fill whole bytes, and says what would."""
    kept = shape[0] if pattern is None else shape[0] * pattern.n // pattern.m
    try:
        if bits is not None:
            lane_bytes(kept, bits)
        if pattern is not None:
            where = index_bits(pattern)
            lane_bytes(*((shape[0], 1) if where is None else (kept, where)))
    except ValueError as error:
        kind = "dense" if pattern is None else str(pattern)
        raise ValueError(
            f"A {kind} kernel {shape} cannot be packed: {error} Pad its reduction axis, or keep it "
            "plain."
        ) from error
