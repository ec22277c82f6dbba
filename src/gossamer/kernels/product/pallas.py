"""`x @ W` for packed kernels on TPUs: what is read from memory are the packed bytes.

Each step decodes a block of 512 outputs in vector registers and multiplies it at once, so that no
decoded weight leaves the chip.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Num, Shaped

from gossamer.kernels.product._pallas_blocks import (
    LARGEST_INPUTS,
    SMALLEST_GROUP,
    Blocks,
    block_rows,
    choose,
    column_inputs,
)
from gossamer.kernels.product._pallas_codes import COLUMN_BYTES, OUTPUTS, TILES, place_bits
from gossamer.kernels.product._pallas_kernel import add_block
from gossamer.kernels.product.op import LONGEST_GROUP, Layout, Planes, like_result
from gossamer.quantization import Format, Int
from gossamer.sparsity import NM

_SIZES = (2, 4, 8, 16)
_WIDTHS = (1, 2, 4, 8)  # of fields; others are split
_WITHOUT_BYTES = ("TPU v2", "TPU v3", "TPU v4")


def why_unavailable() -> str | None:
    """Why JAX's devices cannot run the kernel, in words; None when they can."""
    if (backend := jax.default_backend()) != "tpu":
        return f"JAX runs on {backend}, not on a TPU"
    if (kind := jax.devices()[0].device_kind).startswith(_WITHOUT_BYTES):
        return f"a {kind} cannot multiply bytes"
    return None


def why_not(x: Float[Array, "rows in"], planes: Planes, layout: Layout) -> str | None:
    """Says in words why the kernel does not multiply these, on whatever device; None: it does.

    Example:
        >>> x, kernel = jnp.ones((1, 32)), jnp.zeros((1, 192), jnp.uint8)
        >>> planes = Planes(kernel, None, jnp.ones((1, 1, 16)), None)
        >>> layout = Layout(bits=3, pattern=None, scale="float32", out=16, activations=None)
        >>> why_not(x, planes, layout)
        'codes have 3 bits; the Pallas kernel reads 2, 4 and 8'
    """
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"x is {x.dtype}; the Pallas kernel takes float32 and bfloat16"
    if 0 in (*x.shape, layout.out):
        return "there is nothing to multiply"
    if layout.bits not in _WIDTHS:
        return f"codes have {layout.bits} bits; the Pallas kernel reads 2, 4 and 8"
    return (
        _why_not_pattern(layout.pattern)
        or _why_not_words(planes)
        or _why_not_groups(x.shape[1], planes.scales.shape[-2], layout)
        or _why_not_activations(layout.activations)
        or (None if layout.book is None else "codes are looked up in a codebook")
    )


def _why_not_pattern(pattern: NM | None) -> str | None:
    if pattern is None:
        return None
    if pattern.m not in _SIZES or pattern.n not in (1, *_SIZES) or pattern.n == pattern.m:
        return f"the pattern is {pattern}; the Pallas kernel takes powers of two, 16 at most"
    if (bits := place_bits(pattern)) is not None and bits not in _WIDTHS:
        return f"places of {pattern} have {bits} bits; the Pallas kernel reads 1, 2 and 4"
    return None


def _why_not_words(planes: Planes) -> str | None:
    for plane in (planes.values, planes.indices):
        if plane is not None and (size := plane.shape[-1] // 16) % 4:
            return f"an output has {size} bytes; the Pallas kernel reads whole words of 4"
    return None


def _why_not_groups(size: int, groups: int, layout: Layout) -> str | None:
    group = size // groups
    if group > LONGEST_GROUP:
        return f"a group has {group} elements; kernels sum {LONGEST_GROUP} at most"
    if groups > 1 and group < SMALLEST_GROUP:
        return f"a group has {group} elements; the Pallas kernel takes {SMALLEST_GROUP} or more"
    if choose(size, groups, layout.bits, layout.pattern) is None:
        return (
            f"a group has {group} elements; no block of {LARGEST_INPUTS} inputs or fewer has whole "
            "groups, or equal parts of one, in whole registers"
        )
    return None


def _why_not_activations(format: Format | None) -> str | None:
    if format is not None and format != Int(format.bits):
        return f"activations are {format}; kernels quantize symmetrically with one scale a row"
    return None


def product(
    x: Float[Array, "rows in"], planes: Planes, layout: Layout, *, interpret: bool = False
) -> Float[Array, "rows out"]:
    """Multiplies by the Pallas kernel; `why_not` has said None.

    With quantized activations the integer sums of a block are exact, and so is their sum where all
    of `in` has one scale. Otherwise each block's share of each group is rounded when it is
    converted, scaled and added: with S such shares an output is off by at most (S + 3) 2^-24 times
    the sum of their sizes. With float activations it is off by at most (in + S + 3) 2^-24 times the
    sum of its terms' sizes, if the device multiplies and adds float32. A bfloat16 result is rounded
    once more.

    Like a native kernel it has no derivative of its own; `gossamer.packing` gives it one.

    Args:
        x: activations; if the layout says so, each row is quantized first.
        planes: what `gossamer.packing.pack` makes.
        layout: how the planes are to be read.
        interpret: runs the kernel's operations one by one, on any device.
    """
    if layout.activations is None:
        return _call(x, planes, layout, interpret).astype(x.dtype)
    quantized = layout.activations.encode(x.T)  # its reduction axis comes first
    y = _call(quantized.codes.T, planes, layout, interpret)
    return (y * quantized.scales.reshape(-1, 1)).astype(x.dtype)


def _call(
    x: Num[Array, "rows in"], planes: Planes, layout: Layout, interpret: bool
) -> Float[Array, "rows out"]:
    tiles, groups, _ = planes.scales.shape
    blocks = choose(x.shape[1], groups, layout.bits, layout.pattern)
    assert blocks is not None
    rows = block_rows(x.shape[0], x.dtype.name, blocks)
    integer_total = x.dtype == jnp.int8 and blocks.one_scale
    result = jax.eval_shape(functools.partial(like_result, layout), x.astype(jnp.float32), planes)
    # Beyond the end of `in` the planes read as any codes, so `x` has to be zero there.
    x = jnp.pad(x, ((0, 0), (0, blocks.steps * blocks.inputs - x.shape[1])))
    arranged = (
        planes.values,
        planes.indices,
        _arrange(planes.scales, blocks),
        None if planes.zeros is None else _arrange(planes.zeros, blocks),
    )
    return pl.pallas_call(
        functools.partial(add_block, layout, blocks),
        grid=(pl.cdiv(x.shape[0], rows), pl.cdiv(tiles, TILES), blocks.steps),
        in_specs=[
            pl.BlockSpec((rows, blocks.inputs), lambda row, tile, step: (row, step)),
            _plane_specs(planes, layout, blocks),
        ],
        out_specs=pl.BlockSpec((rows, OUTPUTS), lambda row, tile, step: (row, tile)),
        out_shape=result,
        scratch_shapes=[pltpu.VMEM((rows, OUTPUTS), jnp.int32 if integer_total else jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name="gossamer_product",
    )(x, arranged)


def _arrange(
    plane: Shaped[Array, "tiles groups 16"], blocks: Blocks
) -> Shaped[Array, "parts part_groups out"]:
    """Scales or zero points in the order of outputs, the groups of a block together."""
    tiles, groups, lanes = plane.shape
    rows = jnp.swapaxes(plane, 0, 1).reshape(groups, tiles * lanes)
    # Zeros beyond the end, where `x` is zero too: what else is there need not be finite.
    rows = jnp.pad(rows, ((0, -groups % blocks.groups), (0, 0)))
    return rows.reshape(-1, blocks.groups, tiles * lanes)


def _plane_specs(
    planes: Planes, layout: Layout, blocks: Blocks
) -> tuple[pl.BlockSpec, pl.BlockSpec | None, pl.BlockSpec, pl.BlockSpec | None]:
    """The blocks of each plane; a plane that is not there has none."""

    def columns(inputs: int) -> pl.BlockSpec:
        size = blocks.inputs // inputs * COLUMN_BYTES
        return pl.BlockSpec((TILES, size), lambda row, tile, step: (tile, step))

    def of_groups(row: Array, tile: Array, step: Array) -> tuple[Array, int, Array]:
        # Not `//`, which lowers only where the chip is known.
        return jax.lax.div(step, jnp.int32(blocks.steps_per_group)), 0, tile

    groups = pl.BlockSpec((1, blocks.groups, OUTPUTS), of_groups)
    of_values, of_indices = column_inputs(layout.bits, layout.pattern)
    return (
        columns(of_values),
        None if planes.indices is None else columns(of_indices),
        groups,
        None if planes.zeros is None else groups,
    )
