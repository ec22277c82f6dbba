"""Masks as values that know how they are stored: a byte or a bit a weight."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.selection import count_marks


@struct.dataclass
class Mask:
    """Which elements of a weight are kept, True where they are.

    Packed masks hold eight places of the first axis in a byte, the lowest place in the lowest bit;
    the other axes stay, so that a mask is sharded along them as its weight is. How long the first
    axis is follows from the weight, so that a part of a mask fits the part of its weight.

    Attributes:
        stored: booleans `[*dims]`, or bytes `[ceil(dims[0] / 8), *dims[1:]]`, uint8.
        packed: whether it is stored in bits.

    Example:
        >>> mask = Mask.of(jnp.array([True, False, True]), packed=True)
        >>> mask.stored, mask.apply(jnp.array([1.0, 2.0, jnp.inf]))
        (Array([5], dtype=uint8), Array([ 1.,  0., inf], dtype=float32))
    """

    stored: Any  # also what stands for an array in a tree of shapes or shardings
    packed: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, keep: Bool[Array, "*dims"], packed: bool = False) -> "Mask":
        """A mask of booleans, of one axis or more."""
        if not packed:
            return cls(keep)
        return cls(jnp.packbits(keep, axis=0, bitorder="little"), packed=True)

    def keep(self, shape: tuple[int, ...]) -> Bool[Array, "*dims"]:
        """The booleans of a weight of this shape."""
        if not self.packed:
            return self.stored
        bits = jnp.unpackbits(self.stored, axis=0, count=shape[0], bitorder="little")
        return bits.astype(jnp.bool_)

    def apply(self, weight: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
        """Zeros for what is not kept, whatever was there, Inf and NaN too."""
        return jnp.where(self.keep(weight.shape), weight, jnp.zeros((), weight.dtype))

    def kept(self) -> Int[Array, ""]:
        """How many are kept."""
        return self._count(self.stored)

    def flips(self, other: "Mask") -> Int[Array, ""]:
        """In how many places another mask of the same shape and storage differs."""
        return self._count(self.stored ^ other.stored)

    def _count(self, stored: Any) -> Int[Array, ""]:
        if not self.packed:
            return count_marks(stored)
        return jnp.sum(jax.lax.population_count(stored), dtype=jnp.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of the mask."""
        return self.stored.size * jax.dtypes.itemsize_bits(self.stored.dtype) // 8
