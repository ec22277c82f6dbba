"""The seam: a weight's type decides how it multiplies.

Every matrix product of every model goes through `dot`, every embedding lookup through `take`. A
kernel is `[in, out]`; the product sums over `in`, and groups of M and scale blocks always run
along `in`. An embedding is the kernel of the output projection, `[model, vocabulary]`, so a tied
model has one kernel and `take` reads its output columns.

A plain array multiplies plainly. Anything else answers for itself: this module imports nothing of
ours, and models never ask which type they hold.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@runtime_checkable
class Weight(Protocol):
    """What a compressed kernel `[in, out]` must offer: a registered pytree with these members."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(in, out)`, derived from the planes so that it is right inside `shard_map`."""
        ...

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of `materialize()`."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that the planes hold, scales included."""
        ...

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        """`x @ materialize()`, by whatever is fastest."""
        ...

    def take(self, indices: Int[Array, "*batch"], /) -> Float[Array, "*batch in"]:
        """The output columns `indices`, one row each."""
        ...

    def materialize(self) -> Float[Array, "in out"]:
        """The values that the planes stand for."""
        ...


@runtime_checkable
class Joinable(Weight, Protocol):
    """A weight that others of its class can be laid beside; not every weight need be."""

    def beside(self, others: Sequence[Any], /) -> Weight | None:
        """One weight with the outputs of all, in order; None where they are not stored alike."""
        ...


Kernel: TypeAlias = jax.Array | np.ndarray | Weight


def dot(x: Float[Array, "*batch in"], w: Kernel) -> Float[Array, "*batch out"]:
    """Multiplies `x` by a kernel `[in, out]` of any type, summing over `in`.

    Raises:
        ValueError: the last axis of `x` is not as long as the first of `w`.

    Example:
        >>> dot(jnp.array([1.0, 2.0]), jnp.array([[1.0], [10.0]]))
        Array([21.], dtype=float32)
    """
    if x.shape[-1] != w.shape[-2]:
        raise ValueError(
            f"dot sums the last axis of x over the first axis of the kernel, got {x.shape} and "
            f"{w.shape}."
        )
    if isinstance(w, jax.Array | np.ndarray):
        return jnp.matmul(x, w)
    return w.dot(x)


def take(w: Kernel, indices: Int[Array, "*batch"]) -> Float[Array, "*batch in"]:
    """Reads the output columns `indices` of a kernel `[in, out]`: an embedding lookup.

    Example:
        >>> take(jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), jnp.array([2, 0]))
        Array([[3., 6.],
               [1., 4.]], dtype=float32)
    """
    if isinstance(w, jax.Array | np.ndarray):
        return jnp.moveaxis(jnp.take(w, indices, axis=1), 0, -1)
    return w.take(indices)


def beside(kernels: Sequence[Kernel]) -> Kernel | None:
    """Lays kernels `[in, out_i]` side by side, so that one product does for all that share `x`.

    None where they are not stored alike: then each multiplies for itself.

    Example:
        >>> beside([jnp.array([[1.0]]), jnp.array([[2.0, 3.0]])])
        Array([[1., 2., 3.]], dtype=float32)
    """
    first, *others = kernels
    arrays = [kernel for kernel in kernels if isinstance(kernel, jax.Array | np.ndarray)]
    if len(arrays) == len(kernels):
        return jnp.concatenate(arrays, axis=-1)
    if isinstance(first, Joinable) and all(type(other) is type(first) for other in others):
        return first.beside(others)
    return None


def materialize(w: Kernel) -> jax.Array:
    """The plain `[in, out]` array that a kernel of any type stands for."""
    return jnp.asarray(w) if isinstance(w, jax.Array | np.ndarray) else w.materialize()
