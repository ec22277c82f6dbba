"""A kernel as integer codes and scales, one byte a code: what post-training quantization makes."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import Int as IntArray

from gossamer.quantization.formats import Codes, Format, Int
from gossamer.quantization.integers import encode_rows, multiply_codes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A quantized kernel `[in, out]` with exact reference numerics.

    Attributes:
        data: codes, scales and zero points.
        format: the format of the codes (static).
        activations: None multiplies by the decoded weights; a format first quantizes each row of
            `x` dynamically and multiplies integers (static).
    """

    data: Codes
    format: Format = dataclasses.field(metadata={"static": True})
    activations: Int | None = dataclasses.field(default=None, metadata={"static": True})

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
        planes = jax.tree.map(lambda *planes: jnp.concatenate(planes, -1), *[e.data for e in every])
        return dataclasses.replace(self, data=planes)

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        """`x` times the decoded kernel, or integers times integers where `activations` is set."""
        if self.activations is None:
            return jnp.matmul(x, self.materialize().astype(x.dtype))
        return integer_dot(x, self.data, self.activations)

    def take(self, indices: IntArray[Array, "*batch"], /) -> Float[Array, "*batch in"]:
        """Decodes the output columns `indices`, one row each."""
        flat = indices.reshape(-1)
        columns = jax.tree.map(lambda plane: jnp.take(plane, flat, axis=1), self.data)
        return columns.decode().T.reshape(*indices.shape, self.shape[0])


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
    return _integer_dot(x, kernel, activations)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _integer_dot(
    x: Float[Array, "*batch in"], kernel: Codes, activations: Int
) -> Float[Array, "*batch out"]:
    rows = encode_rows(x.reshape(-1, x.shape[-1]), activations)
    y = multiply_codes(rows.codes, kernel) * rows.scales
    return y.reshape(*x.shape[:-1], kernel.codes.shape[1]).astype(x.dtype)


@_integer_dot.defjvp
def _straight_through(
    activations: Int, primals: tuple[Array, Codes], tangents: tuple[Array, Codes]
) -> tuple[Array, Array]:
    x, kernel = primals
    y = _integer_dot(x, kernel, activations)
    return y, jnp.matmul(tangents[0], kernel.decode().astype(x.dtype))
