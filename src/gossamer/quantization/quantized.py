"""A kernel as integer codes and scales, one byte a code: what post-training quantization makes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import Int as IntArray

from gossamer.quantization.formats import Codes, Format
from gossamer.quantization.integers import Int
from gossamer.quantization.products import encode_rows, multiply_codes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A quantized kernel `[in, out]` with exact reference numerics.

    Attributes:
        data: codes, scales and zero points.
        format: the format of the codes (static).
        activations: None multiplies by the decoded weights; a format first quantizes each row of
            `x` dynamically: `Int` without groups multiplies integers, any other multiplies what
            both operands stand for (static).
    """

    data: Codes
    format: Format = dataclasses.field(metadata={"static": True})
    activations: Format | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """`(in, out)`."""
        return self.data.codes.shape

    @property
    def dtype(self) -> jnp.dtype:
        """float32: what `materialize` returns."""
        return jnp.dtype(jnp.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the planes as held here, one byte a code."""
        return sum(plane.nbytes for plane in jax.tree.leaves(self.data))

    def materialize(self) -> Float[Array, "in out"]:
        """The decoded values."""
        return self.data.decode()

    def beside(self, others: Sequence["Quantized"], /) -> "Quantized | None":
        """One kernel with the outputs of all, in order; None where formats differ."""
        every = (self, *others)
        kinds = {(each.format, each.activations) for each in every}
        if len(kinds) > 1 or len({each.shape[0] for each in every}) > 1:
            return None
        data = [_per_output(each.data) for each in every]
        planes = jax.tree.map(lambda *planes: jnp.concatenate(planes, -1), *data)
        return dataclasses.replace(self, data=planes)

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        """`x` times the decoded kernel; both are rounded where `activations` is set."""
        if self.activations is None:
            return jnp.matmul(x, self.materialize().astype(x.dtype))
        check_activations(self.activations, self.format)
        integers = jnp.issubdtype(self.data.codes.dtype, jnp.integer)
        if integers and isinstance(self.activations, Int) and self.activations.group is None:
            return integer_dot(x, self.data, self.activations)
        return rounded_dot(x, self.data, self.activations)

    def take(self, indices: IntArray[Array, "*batch"], /) -> Float[Array, "*batch in"]:
        """Decodes the output columns `indices`, one row each."""
        flat = indices.reshape(-1)
        data = _per_output(self.data)
        columns = jax.tree.map(lambda plane: jnp.take(plane, flat, axis=-1), data)
        return columns.decode().T.reshape(*indices.shape, self.shape[0])


def _per_output(data: Codes) -> Codes:
    """Codes whose tensor scale, if any, is one for each output, so that outputs can be chosen."""
    if data.tensor_scale is None:
        return data
    return data._replace(tensor_scale=jnp.broadcast_to(data.tensor_scale, data.codes.shape[-1:]))


def check_activations(activations: Format, weights: Format) -> None:
    """Raises where a product of these formats has no meaning.

    Raises:
        ValueError: the activations are asymmetric, or the groups of one run over those of the
            other.
    """
    if not activations.symmetric:
        raise ValueError(
            f"Activations are quantized symmetrically, got {activations}; leave out symmetric."
        )
    own, other = activations.group, weights.group
    if own is not None and other is not None and own % other and other % own:
        raise ValueError(
            f"Activations in groups of {own} ({activations}) do not line up with weights in groups "
            f"of {other} ({weights}); choose groups of which one divides the other."
        )


def quantize_rows(x: Float[Array, "rows in"], format: Format) -> Float[Array, "rows in"]:
    """What each row is when it is quantized on its own, a scale of the tensor included."""
    return jax.vmap(lambda row: format.quantize(row[:, None])[:, 0])(x)


def rounded_dot(
    x: Float[Array, "*batch in"], kernel: Codes, activations: Format
) -> Float[Array, "*batch out"]:
    r"""Multiplies what the codes of both operands stand for, in float32.

    In exact arithmetic that is the sum over blocks of the scales' product times that of the
    elements, as an MX unit computes it (OCP MX v1.0, section 6.4). The derivative in `x` is that
    of `integer_dot`.

    Args:
        x: activations; each row is quantized on its own, in groups along `in`.
        kernel: the quantized kernel.
        activations: the format of the rows.

    Raises:
        ValueError: the format's group does not divide `in`.
    """
    return _straight_through(_multiply_rounded, x, kernel, activations)


def integer_dot(
    x: Float[Array, "*batch in"], kernel: Codes, activations: Int
) -> Float[Array, "*batch out"]:
    r"""Multiplies integers by integers, exactly, and scales the sums once per group.

    .. math:: y_{bo} = s_b \sum_g t_{go} \sum_{i \in g} q_{bi} (k_{io} - z_{go})

    The derivative in `x` is straight-through: that of the product with the decoded kernel, as if
    `x` were not rounded. There is none in the kernel.

    Args:
        x: activations; each row is quantized with its own scale s_b.
        kernel: codes k, scales t and zero points z.
        activations: a symmetric format with one scale a row.

    Raises:
        ValueError: `activations` has groups or is asymmetric.
    """
    if activations.group is not None or not activations.symmetric:
        raise ValueError(
            f"Activations are quantized symmetrically with one scale a row, got {activations}; "
            "leave out group and symmetric."
        )
    return _straight_through(_multiply_integers, x, kernel, activations)


_Product: TypeAlias = Callable[[Array, Codes, Any], Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def _straight_through(multiply: _Product, x: Array, kernel: Codes, activations: Format) -> Array:
    return multiply(x, kernel, activations)


@_straight_through.defjvp
def _derivative(
    multiply: _Product,
    activations: Format,
    primals: tuple[Array, Codes],
    tangents: tuple[Array, Codes],
) -> tuple[Array, Array]:
    x, kernel = primals
    y = _straight_through(multiply, x, kernel, activations)
    return y, jnp.matmul(tangents[0], kernel.decode().astype(x.dtype))


def _multiply_rounded(
    x: Float[Array, "*batch in"], kernel: Codes, activations: Format
) -> Float[Array, "*batch out"]:
    rows = quantize_rows(x.reshape(-1, x.shape[-1]).astype(jnp.float32), activations)
    y = jnp.matmul(rows, kernel.decode())
    return y.reshape(*x.shape[:-1], y.shape[-1]).astype(x.dtype)


def _multiply_integers(
    x: Float[Array, "*batch in"], kernel: Codes, activations: Int
) -> Float[Array, "*batch out"]:
    rows = encode_rows(x.reshape(-1, x.shape[-1]), activations)
    y = multiply_codes(rows.codes, kernel) * rows.scales
    return y.reshape(*x.shape[:-1], y.shape[-1]).astype(x.dtype)
