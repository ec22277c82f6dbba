"""What the Pallas kernel does in one step of its grid."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int32, Num, Shaped

from gossamer.kernels.product._pallas_blocks import Blocks
from gossamer.kernels.product._pallas_codes import (
    PLACES,
    REGISTERS,
    codes,
    to_outputs,
    to_registers,
    words,
)
from gossamer.kernels.product.op import Layout
from gossamer.quantization import ScaleType


class PlaneRefs(NamedTuple):
    """References to blocks of a packed kernel's planes."""

    values: jax.Ref  # [32, bytes]
    indices: jax.Ref | None  # [32, bytes]
    scales: jax.Ref  # [1, groups, 512]
    zeros: jax.Ref | None  # [1, groups, 512]


def add_block(
    layout: Layout,
    blocks: Blocks,
    x: jax.Ref,
    planes: tuple[jax.Ref, jax.Ref | None, jax.Ref, jax.Ref | None],
    y: jax.Ref,
    total: jax.Ref,
) -> None:
    """Adds the product of a block of rows and one of weights to `total`; in the end writes `y`.

    The grid's last axis goes along `in`.

    Args:
        layout: how the planes are to be read.
        blocks: where groups of scales begin and end.
        x: reference to `[rows, inputs]`, floats or int8.
        planes: the fields of `PlaneRefs`; where a plane is not there, None.
        y: reference to `[rows, 512]`, float32.
        total: reference to `[rows, 512]`, a register's outputs in its own order. Where `in` has one
            scale it holds sums yet to be scaled, and is int32 if `x` is int8.
    """
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _() -> None:
        total[...] = jnp.zeros(total.shape, total.dtype)

    refs = PlaneRefs(*planes)
    values = words(refs.values)
    indices = None if refs.indices is None else words(refs.indices)
    for register in range(REGISTERS):
        kernel = codes(values, indices, layout.bits, layout.pattern, register)
        _add_register(layout, blocks, x, kernel, refs, total, register)

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        for register in range(REGISTERS):
            outputs = _outputs(register)
            sums = to_outputs(total[:, outputs].astype(jnp.float32))
            if blocks.one_scale:
                sums *= decode_scales(refs.scales[0, :, outputs], layout.scale)
            y[:, outputs] = sums


def _add_register(
    layout: Layout,
    blocks: Blocks,
    x: jax.Ref,
    kernel: Int32[Array, "inputs 128"],
    refs: PlaneRefs,
    total: jax.Ref,
    register: int,
) -> None:
    """Adds the products of 128 outputs, group by group."""
    outputs = _outputs(register)
    scales = zeros = None
    if not blocks.one_scale:
        scales = to_registers(decode_scales(refs.scales[0, :, outputs], layout.scale))
    if refs.zeros is not None:
        zeros = to_registers(refs.zeros[0, :, outputs].astype(jnp.int32))
    for group in range(blocks.groups):
        inputs = slice(group * blocks.group_inputs, (group + 1) * blocks.group_inputs)
        weights = kernel[inputs] if zeros is None else kernel[inputs] - zeros[group : group + 1]
        sums = _dot(x[:, inputs], weights, fit_bytes=zeros is None or layout.bits < 8)
        if scales is not None:
            sums = sums.astype(jnp.float32) * scales[group : group + 1]
        total[:, outputs] += sums


def _outputs(register: int) -> slice:
    return slice(register * PLACES, (register + 1) * PLACES)


def _dot(
    x: Num[Array, "rows in"], weights: Int32[Array, "in 128"], fit_bytes: bool
) -> Num[Array, "rows 128"]:
    """Integers by integers, or floats by integers of at most 9 bits: bfloat16 holds those, too.

    `fit_bytes`: whether the weights are bytes. If not, bytes are multiplied by all bits but the
    lowest, and by that.
    """
    if x.dtype == jnp.int8 and not fit_bytes:
        return 2 * _dot(x, weights >> 1, fit_bytes=True) + _dot(x, weights & 1, fit_bytes=True)
    return jnp.dot(
        x,
        weights.astype(x.dtype),
        # By default a TPU rounds float32 to bfloat16.
        precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.int32 if x.dtype == jnp.int8 else jnp.float32,
    )


def decode_scales(stored: Shaped[Array, "*dims"], kind: ScaleType) -> Float[Array, "*dims"]:
    """`scale_from_bytes` of `gossamer.quantization`, of operations that Mosaic has."""
    if kind in ("float32", "bfloat16"):
        return stored.astype(jnp.float32)
    bits = stored.astype(jnp.int32)
    if kind == "e8m0":
        return jax.lax.bitcast_convert_type(bits << 23, jnp.float32)
    # E4M3 of a positive number: four bits of exponent, whose bias is 7, and three of mantissa.
    normal = jax.lax.bitcast_convert_type((bits << 20) + ((127 - 7) << 23), jnp.float32)
    return jnp.where(bits < 8, bits.astype(jnp.float32) * 2.0**-9, normal)
