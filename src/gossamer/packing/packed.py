"""A kernel packed to the last bit, and its reference path in plain JAX."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num
from jaxtyping import Int as IntArray

from gossamer.kernels.product import Layout, Planes, product, why_not
from gossamer.packing.books import HALVES, codes_of
from gossamer.packing.groups import expand_bitmap, expand_positions, index_bits
from gossamer.packing.layout import LANES, lane_index, unpack_fields
from gossamer.quantization import Codes, Format, Int, Quantized, ScaleType
from gossamer.quantization.formats import Book
from gossamer.quantization.scales import scale_from_bytes
from gossamer.sparsity import NM

if TYPE_CHECKING:
    _Plane: TypeAlias = Array
else:
    _Plane = object  # transformations put axes, shardings and shapes in the places of arrays

_FEW_ROWS = 16
"""Up to so many rows, a product tile by tile is faster than one with the whole kernel laid out:
0.5 ms against 1 ms for one row and a 2:4 int4 kernel [576, 1536] on one core."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A packed kernel `[in, out]`, made by `pack` or `pack_floats`: planes in tiles of 16 outputs.

    The planes' first axis are the tiles, so a kernel is sharded over `out` by sharding that axis,
    as long as `padding` is 0: with padding, the shards would be of different kinds.

    Attributes:
        values: fields of `bits` bits, uint8 `[tiles, bytes]`; without `bits`, float32 or bfloat16
            `[tiles, kept, 16]`.
        indices: which weights are kept, uint8 `[tiles, bytes]`; None when dense.
        scales: as stored, `[tiles, groups, 16]`; groups of original elements along `in`, in
            order. None for float values.
        zeros: zero points of asymmetric codes, int8 `[tiles, groups, 16]`, or None.
        bits: bits of a code; None for float values (static, as all that follows).
        pattern: which weights are kept; None when dense.
        scale: how `scales` are stored; None for float values.
        padding: unused lanes of the last tile, 0 to 15.
        activations: None multiplies by the decoded weights; a format first quantizes each row of
            `x` dynamically.
        book: what codes of 4 bits stand for, 0 first, or the small float that codes are; None is
            their two's complement (static).
        tensor_scale: a factor of the whole kernel, float32 `[1]`, or one of each tile `[tiles]`
            where kernels were laid side by side; None for formats without one.
        layer: which one of a stack this kernel is, where the planes have a leading axis of layers;
            see `at`.
    """

    values: _Plane
    indices: _Plane | None
    scales: _Plane | None
    zeros: _Plane | None
    bits: int | None = dataclasses.field(metadata={"static": True})
    pattern: NM | None = dataclasses.field(metadata={"static": True})
    scale: ScaleType | None = dataclasses.field(metadata={"static": True})
    padding: int = dataclasses.field(metadata={"static": True})
    activations: Format | None = dataclasses.field(default=None, metadata={"static": True})
    book: Book | None = dataclasses.field(default=None, metadata={"static": True})
    tensor_scale: _Plane | None = None
    layer: _Plane | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """`(in, out)`, after the planes' leading axes if this is a stack and not one of it."""
        if self.bits is None:
            *lead, tiles, kept, _ = self.values.shape
        else:
            *lead, tiles, size = self.values.shape
            kept = size * 8 // (LANES * self.bits)
        size = kept if self.pattern is None else kept * self.pattern.m // self.pattern.n
        stacked = lead if self.layer is None else []
        return (*stacked, size, tiles * LANES - self.padding)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of `materialize()`: float32, or that of float values."""
        return jnp.dtype(jnp.float32) if self.bits is not None else jnp.dtype(self.values.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes, in memory and on disk."""
        return sum(plane.nbytes for plane in jax.tree.leaves(self))

    def at(self, layer: IntArray[Array, ""]) -> "Packed":
        """One kernel of a stack, which native kernels read where it is, without a copy.

        Args:
            layer: its number, from 0; the planes have a leading axis of layers.
        """
        return dataclasses.replace(self, layer=layer)

    def why_no_kernel(self, rows: Float[Array, "rows in"]) -> str | None:
        """Says in words why `dot` multiplies `rows` in plain JAX; None: by a native kernel.

        That is on a CPU. On a TPU `gossamer.kernels.product.pallas` has the say, and elsewhere
        it is plain JAX.
        """
        if self.bits is None:
            return f"the values are {self.dtype}; kernels multiply codes"
        if isinstance(self.book, str) and self.book not in HALVES:
            return f"the codes are {self.book.upper()} floats; kernels multiply integers"
        return why_not(rows, *self.parts())

    def parts(self) -> tuple[Planes, Layout]:
        """What a native kernel needs to know: the arrays, and how to read them.

        Its product is to be multiplied by `factor`.
        """
        assert self.bits is not None
        assert self.scale is not None
        assert self.scales is not None
        planes = Planes(self.values, self.indices, self.scales, self.zeros, self.layer)
        layout = Layout(
            bits=self.bits,
            pattern=self.pattern,
            scale=self.scale,
            out=self.shape[-1],
            activations=self.activations,
            book=HALVES[self.book] if isinstance(self.book, str) else self.book,
        )
        return planes, layout

    def factor(self) -> Float[Array, " #out"] | float:
        """What is left to multiply the product of `parts` by."""
        unit = 0.5 if isinstance(self.book, str) else 1.0
        scale = _tensor_scale(_own_scale(self), self.shape[-1])
        return unit if scale is None else scale * np.float32(unit)

    def materialize(self) -> Float[Array, "in out"]:
        """The values that the planes stand for, zeros where nothing is kept."""
        return _materialize(self)

    def unpack(self) -> Codes:
        """The codes that were packed, bit for bit; 0 where nothing is kept.

        Raises:
            ValueError: the values are floats.
        """
        if self.bits is None:
            raise ValueError(
                f"This packed kernel {self.shape} holds {self.dtype} values and no codes; use "
                "materialize()."
            )
        return _unpack(self)

    def beside(self, others: Sequence["Packed"], /) -> "Packed | None":
        """One kernel with the outputs of all, in order.

        None where they are not stored alike, or a kernel before the last does not fill its tiles.
        """
        every = [_scale_each_tile(each) for each in (self, *others)]
        kinds = {jax.tree.structure(dataclasses.replace(each, padding=0)) for each in every}
        shapes = {tuple(plane.shape[1:] for plane in jax.tree.leaves(each)) for each in every}
        if len(kinds) > 1 or len(shapes) > 1 or any(each.padding for each in every[:-1]):
            return None
        last = dataclasses.replace(every[0], padding=every[-1].padding)
        planes = zip(*map(jax.tree.leaves, every), strict=True)
        joined = [jnp.concatenate(parts, axis=0) for parts in planes]
        return jax.tree.unflatten(jax.tree.structure(last), joined)

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        """`x` times the decoded kernel; both are rounded where `activations` is set."""
        return _dot(x, self)

    def take(self, indices: IntArray[Array, "*batch"], /) -> Float[Array, "*batch in"]:
        """Decodes the output columns `indices`, one row each; reads only their tiles.

        As in `jax.numpy.take`, -1 is the last column and one outside the kernel gives NaN.
        """
        return _take(self, indices)


def _own_scale(kernel: Packed) -> Array | None:
    """The kernel's tensor scale, taken from its stack."""
    if kernel.tensor_scale is None or kernel.layer is None:
        return kernel.tensor_scale
    return jax.lax.dynamic_index_in_dim(kernel.tensor_scale, kernel.layer, 0, False)


def _tensor_scale(scale: Array | None, out: int) -> Array | None:
    """A tensor scale for each output, where there is more than one for all."""
    if scale is None or scale.shape[-1] == 1:
        return scale
    return jnp.repeat(scale, LANES)[:out]


def _scale_each_tile(kernel: Packed) -> Packed:
    """The kernel with its tensor scale, if any, beside each of its tiles."""
    if kernel.tensor_scale is None:
        return kernel
    tiles = jnp.broadcast_to(kernel.tensor_scale, kernel.values.shape[:1])
    return dataclasses.replace(kernel, tensor_scale=tiles)


def _alone(kernel: Packed) -> Packed:
    """The kernel with planes of its own: a copy of its part of the stack's."""
    if kernel.layer is None:
        return kernel
    number, stack = kernel.layer, dataclasses.replace(kernel, layer=None)
    return jax.tree.map(lambda plane: jax.lax.dynamic_index_in_dim(plane, number, 0, False), stack)


@jax.jit
def _materialize(kernel: Packed) -> Array:
    kernel = _alone(kernel)
    return _scaled(_decode_tiles(kernel), kernel)


@jax.jit
def _unpack(kernel: Packed) -> Codes:
    kernel = _alone(kernel)
    out = kernel.shape[-1]
    scales = _columns(_scales(kernel), out)
    zeros = None if kernel.zeros is None else _columns(kernel.zeros, out)
    tiles = jax.lax.map(_stored, dataclasses.replace(kernel, tensor_scale=None))
    return Codes(_columns(tiles, out), scales, zeros, _tensor_scale(kernel.tensor_scale, out))


@jax.jit
def _dot(x: Array, kernel: Packed) -> Array:
    rows = x.reshape(-1, x.shape[-1])
    multiply = _multiply if _kernels(rows, kernel) else _reference
    return multiply(rows, kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_jvp
def _multiply(rows: Array, kernel: Packed) -> Array:
    return jax.lax.platform_dependent(rows, kernel, **_kernels(rows, kernel), default=_reference)


@_multiply.defjvp
def _derivative(
    primals: tuple[Array, Packed], tangents: tuple[Array, Packed]
) -> tuple[Array, Array]:
    """That of the reference, whose own value is not used and so not computed."""
    return _multiply(*primals), jax.jvp(_reference, primals, tangents)[1]


def _kernels(rows: Array, kernel: Packed) -> dict[str, Callable[[Array, Packed], Array]]:
    """The kernels that can multiply these, by their platforms.

    A Pallas kernel is traced only where there is a TPU: that takes some 50 ms for every shape, and
    its import 150 ms.
    """
    found: dict[str, Callable[[Array, Packed], Array]] = {}
    if kernel.bits is None:
        return found
    if kernel.why_no_kernel(rows) is None:
        found["cpu"] = functools.partial(_times, product)
    if jax.default_backend() == "tpu":
        from gossamer.kernels.product import pallas

        if pallas.why_unavailable() is None and pallas.why_not(rows, *kernel.parts()) is None:
            found["tpu"] = functools.partial(_times, pallas.product)
    return found


def _times(multiply: Callable[..., Array], rows: Array, kernel: Packed) -> Array:
    factor = kernel.factor()
    y = multiply(rows, *kernel.parts())
    return y if isinstance(factor, float) and factor == 1 else y * jnp.asarray(factor, y.dtype)


def _reference(rows: Array, kernel: Packed) -> Array:
    """The product in plain JAX."""
    kernel = _alone(kernel)
    if kernel.activations is not None:
        assert kernel.bits is not None
        format = Int(kernel.bits)  # the codes are there already: the format is only carried along
        return Quantized(_unpack(kernel), format, kernel.activations).dot(rows)
    if rows.shape[0] > _FEW_ROWS:
        return jnp.matmul(rows, _materialize(kernel).astype(rows.dtype))
    unscaled = dataclasses.replace(kernel, tensor_scale=None)
    tiles = jax.lax.map(lambda tile: jnp.matmul(rows, _decode(tile).astype(rows.dtype)), unscaled)
    return _scaled(_columns(tiles, kernel.shape[-1]), kernel)


@jax.jit
def _take(kernel: Packed, indices: Array) -> Array:
    """Makes a tile of one lane of each column, then decodes those."""
    kernel = _alone(kernel)
    out = kernel.shape[-1]
    column = indices.reshape(-1)
    column = jnp.where(column < 0, column + out, column)
    inside = (column >= 0) & (column < out)  # padding lanes are none of the kernel
    tile, lane = jnp.divmod(column, LANES)

    def lanes_of(plane: Array | None, bits: int) -> Array | None:
        if plane is None:
            return None
        index = jnp.asarray(lane_index(bits, plane.shape[-1]))
        return jnp.take_along_axis(plane[tile], index[lane], axis=1)

    def column_of(plane: Array | None) -> Array | None:
        return None if plane is None else plane[tile, :, lane][..., None]

    if kernel.bits is None:
        values = column_of(kernel.values)
    else:
        values = lanes_of(kernel.values, kernel.bits)
    assert values is not None
    # A bitmap's bytes lie like fields of 8 bits.
    where = 8 if kernel.pattern is None else index_bits(kernel.pattern) or 8
    columns = dataclasses.replace(
        kernel,
        tensor_scale=None,
        values=values,
        indices=lanes_of(kernel.indices, where),
        scales=column_of(kernel.scales),
        zeros=column_of(kernel.zeros),
    )
    rows = _decode(columns, lanes=1)[..., 0]
    if (scale := _tensor_scale(kernel.tensor_scale, out)) is not None:
        rows = rows * jnp.broadcast_to(scale, (out,))[column][:, None]
    return jnp.where(inside[:, None], rows, jnp.nan).reshape(*indices.shape, kernel.shape[-2])


def _scales(kernel: Packed) -> Float[Array, "*tiles groups lanes"]:
    assert kernel.scales is not None
    assert kernel.scale is not None
    return scale_from_bytes(kernel.scales, kernel.scale)


def _decode_tiles(kernel: Packed) -> Float[Array, "in out"]:
    """The values, but for the tensor's scale."""
    tiles = jax.lax.map(_decode, dataclasses.replace(kernel, tensor_scale=None))
    return _columns(tiles, kernel.shape[-1])


def _scaled(columns: Float[Array, "rows out"], kernel: Packed) -> Float[Array, "rows out"]:
    """Times the tensor's scale, where there is one."""
    scale = _tensor_scale(kernel.tensor_scale, columns.shape[-1])
    return columns if scale is None else columns * scale.astype(columns.dtype)


def _decode(kernel: Packed, lanes: int = LANES) -> Float[Array, "*tiles in lanes"]:
    """The values, tile by tile."""
    stored = _stored(kernel, lanes)
    if kernel.bits is None:
        return stored
    scales = _scales(kernel)
    groups = stored.reshape(*scales.shape[:-1], -1, lanes).astype(jnp.float32)
    if kernel.zeros is not None:
        groups = groups - kernel.zeros[..., None, :].astype(jnp.float32)
    return (groups * scales[..., None, :]).reshape(stored.shape)


def _stored(kernel: Packed, lanes: int = LANES) -> Num[Array, "*tiles in lanes"]:
    """Codes (int8) or float values, tile by tile, with zeros where nothing is kept."""
    if kernel.bits is None:
        return _spread(kernel.values, kernel, lanes)
    # As fields: a sum of floats would lose the sign of a zero, and field 0 is 0 in every book.
    fields = _spread(unpack_fields(kernel.values, kernel.bits, lanes), kernel, lanes)
    if kernel.book is not None:
        return jnp.asarray(codes_of(kernel.book))[fields]
    sign = np.uint8(1 << (kernel.bits - 1))
    return jax.lax.bitcast_convert_type((fields ^ sign) - sign, jnp.int8)


def _spread(
    kept: Num[Array, "*tiles kept lanes"], kernel: Packed, lanes: int
) -> Num[Array, "*tiles in lanes"]:
    """What is kept at its places, zeros elsewhere."""
    if kernel.pattern is None:
        return kept
    assert kernel.indices is not None
    bits = index_bits(kernel.pattern)
    if bits is None:
        bitmap = unpack_fields(kernel.indices, kernel.pattern.m, lanes, order="bitmap")
        return expand_bitmap(kept, bitmap, kernel.pattern)
    return expand_positions(kept, unpack_fields(kernel.indices, bits, lanes), kernel.pattern)


def _columns(tiles: Num[Array, "tiles rows 16"], out: int) -> Num[Array, "rows out"]:
    """Lays the tiles side by side and drops the padding."""
    count, size, lanes = tiles.shape
    rows = jnp.swapaxes(tiles, 0, 1).reshape(size, count * lanes)
    return rows[:, :out]
