"""What a packed kernel's planes are to a product, and which products have a native kernel."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Num

from gossamer.kernels import library
from gossamer.quantization import Format, Int, ScaleType
from gossamer.sparsity import NM

LONGEST_GROUP = 65536
"""Elements of a scale's group whose products an int32 surely sums."""

_SIZES = (2, 4, 8, 16)
_SCALES: tuple[ScaleType, ...] = ("float32", "bfloat16", "e8m0", "e4m3")
"""In the order of `ScaleType` in csrc/kernels/packed.h."""


_ITSELF = (*range(8), *range(-8, 0))
"""Codes of 4 bits as a codebook of their two's complement."""


class Planes(NamedTuple):
    """The arrays of a packed kernel; `docs/packed-layout.md` draws them.

    With `layer` they have a leading axis of layers, of which the kernel is one.
    """

    values: Array  # uint8 [tiles, bytes]
    indices: Array | None  # uint8 [tiles, bytes]; None when dense
    scales: Array  # as stored [tiles, groups, 16]
    zeros: Array | None  # int8 [tiles, groups, 16]
    layer: Array | None = None  # int32 []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the planes are to be read.

    Attributes:
        bits: bits of a code.
        pattern: which weights are stored; None when dense.
        scale: how scales are stored.
        out: outputs, padding left out.
        activations: None multiplies floats by the decoded weights; a format quantizes each row of
            `x` first.
        book: what codes of 4 bits stand for, 0 first; None is their two's complement.
    """

    bits: int
    pattern: NM | None
    scale: ScaleType
    out: int
    activations: Format | None
    book: tuple[int, ...] | None = None


def why_not(x: Num[Array, "rows in"], planes: Planes, layout: Layout) -> str | None:
    """Says in words why no native kernel multiplies these; None: one does.

    Example:
        >>> x, kernel = jnp.ones((1, 32), jnp.float16), jnp.zeros((1, 256), jnp.uint8)
        >>> planes = Planes(kernel, None, jnp.ones((1, 1, 16)), None)
        >>> layout = Layout(bits=4, pattern=None, scale="float32", out=16, activations=Int(8))
        >>> why_not(x, planes, layout)
        'x is float16; kernels take float32, bfloat16 and codes as int8'
    """
    rows, size = x.shape
    groups = planes.scales.shape[-2]
    if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.int8):
        return f"x is {x.dtype}; kernels take float32, bfloat16 and codes as int8"
    if x.dtype == jnp.int8 and layout.activations is None:
        return "x holds codes, and the layout says that activations are floats"
    if 0 in (rows, size, layout.out):
        return "there is nothing to multiply"
    if size // groups > LONGEST_GROUP:
        return f"a group has {size // groups} elements; kernels sum {LONGEST_GROUP} at most"
    if layout.pattern is not None and layout.pattern.m not in _SIZES:
        return f"the pattern is {layout.pattern}; kernels know groups of {_SIZES}"
    if (format := layout.activations) is not None and format != Int(format.bits):
        return f"activations are {format}; kernels quantize symmetrically, a float32 scale a row"
    return library.missed()


def product(x: Num[Array, "rows in"], planes: Planes, layout: Layout) -> Float[Array, "rows out"]:
    """Multiplies by a native kernel; `why_not` has said None.

    Rows that are int8 are codes already, whose scale is 1: then the result is float32.

    With quantized activations integer sums are exact. Against the same sums and scales in exact
    arithmetic, each of the G groups' share is rounded when it is converted, scaled and added, and
    the sum once more: an output is off by at most (G + 3) 2^-24 times the sum of its groups' sizes.
    With float activations it is off by at most (in + G + 3) 2^-24 times the sum of its terms'
    sizes. A bfloat16 result is rounded once more.

    Under `vmap` over `x` alone the batch becomes rows, and the planes are read once. The result has
    no derivative of its own; `gossamer.packing` gives it one.
    """
    return _batched(layout)(x, planes)


@functools.cache
def _batched(layout: Layout) -> Callable[[Array, Planes], Array]:
    call = functools.partial(_call, layout)
    multiply = custom_vmap(call)

    @multiply.def_vmap
    def _(size: int, batched: list[Any], x: Array, planes: Planes) -> tuple[Array, bool]:
        if not any(jax.tree.leaves(batched[1])):
            y = multiply(x.reshape(-1, x.shape[-1]), planes)
            return y.reshape(*x.shape[:-1], y.shape[-1]), True
        every = jax.tree.map(
            lambda array, there: array if there else jnp.broadcast_to(array, (size, *array.shape)),
            (x, planes),
            tuple(batched),
        )
        return jax.lax.map(lambda one: multiply(*one), every), True

    return multiply


def _call(layout: Layout, x: Array, planes: Planes) -> Array:
    """One custom call; planes that a kernel does without are empty ones to it."""
    pattern = layout.pattern
    layers = 1
    layer = jnp.int32(0) if planes.layer is None else planes.layer.astype(jnp.int32)
    if planes.layer is not None:
        layers = planes.values.shape[0]
        planes = jax.tree.map(lambda plane: plane.reshape(-1, *plane.shape[2:]), planes[:4])
        planes = Planes(*planes)
    tiles = planes.values.shape[0]
    none = jnp.zeros((tiles, 0), jnp.uint8)
    result = jax.eval_shape(functools.partial(like_result, layout), x, planes)
    return jax.ffi.ffi_call(library.PRODUCT, result)(
        x,
        planes.values,
        none if planes.indices is None else planes.indices,
        planes.scales,
        jnp.zeros((tiles, 0, 0), jnp.int8) if planes.zeros is None else planes.zeros,
        layer,
        layers=np.int64(layers),
        bits=np.int64(layout.bits),
        n=np.int64(1 if pattern is None else pattern.n),
        m=np.int64(1 if pattern is None else pattern.m),
        scale_type=np.int64(_SCALES.index(layout.scale)),
        activation_bits=np.int64(0 if layout.activations is None else layout.activations.bits),
        book=np.array(_ITSELF if layout.book is None else layout.book, np.int8),
    )


def like_result(layout: Layout, x: Array, planes: Planes) -> Array:
    """Of the shape and dtype of the product, to be traced and not computed.

    In `shard_map` it varies over the axes that operands do.
    """
    dtype = jnp.float32 if x.dtype == jnp.int8 else x.dtype
    some = sum(jnp.sum(leaf).astype(dtype) for leaf in jax.tree.leaves((x, planes)))
    return jnp.broadcast_to(some, (x.shape[0], layout.out))
