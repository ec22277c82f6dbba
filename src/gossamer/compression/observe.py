"""What the kernels of a block are multiplied by: statistics of their inputs, without touching the
model. A kernel is replaced by one that notes its input and then multiplies as before: the seam
makes this a weight type like any other.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gossamer.compression.hessian import gram
from gossamer.inference.blockwise import batches
from gossamer.weights import Kernel, dot, materialize, take


@dataclasses.dataclass
class _Watch:
    """The Gram matrices of the inputs seen in one trace; kernels that share an input share one."""

    # The input is kept beside its matrix: were it freed, a later input could get the same id.
    by_input: dict[int, tuple[Array, Float[Array, "in in"]]] = dataclasses.field(
        default_factory=dict
    )
    by_path: dict[str, Float[Array, "in in"]] = dataclasses.field(default_factory=dict)

    def see(self, path: str, x: Float[Array, "*batch in"]) -> None:
        if id(x) not in self.by_input:
            self.by_input[id(x)] = (x, gram(x))
        self.by_path[path] = self.by_input[id(x)][1]


@dataclasses.dataclass(frozen=True)
class _Observed:
    """A kernel that notes what it is multiplied by; it lives inside one trace only."""

    kernel: Kernel
    path: str
    watch: _Watch

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.kernel.dtype)

    @property
    def nbytes(self) -> int:
        return self.kernel.nbytes

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        self.watch.see(self.path, x)
        return dot(x, self.kernel)

    def take(self, indices: jax.Array, /) -> jax.Array:
        return take(self.kernel, indices)

    def materialize(self) -> jax.Array:
        return materialize(self.kernel)


def input_grams(
    block: nnx.Module, hidden: Float[Array, "B T D"], paths: Sequence[str]
) -> Mapping[str, Float[Array, "in in"]]:
    r"""Sums :math:`X^T X` of the inputs of each kernel of a block over all tokens.

    Args:
        block: a decoder block, called as `block(hidden, positions)`.
        hidden: hidden states that enter the block.
        paths: dotted paths of kernels within the block.

    Returns:
        Path -> Gram matrix; kernels with the same input have the same matrix.
    """
    graph, state = nnx.split(block)
    total: dict[str, Float[Array, "in in"]] = {}
    for part in batches(hidden):
        seen = _grams(graph, state, part, tuple(paths))
        total = {path: total[path] + seen[path] for path in paths} if total else seen
    return total


@functools.partial(jax.jit, static_argnums=(0, 3))
def _grams(
    graph: nnx.GraphDef, state: nnx.State, hidden: Float[Array, "B T D"], paths: tuple[str, ...]
) -> dict[str, Float[Array, "in in"]]:
    block = nnx.merge(graph, state)
    watch = _Watch()
    for path in paths:
        *parents, name = path.split(".")
        variable = getattr(functools.reduce(getattr, parents, block), name)
        variable.set_value(_Observed(variable.get_value(), path, watch))
    block(hidden, jnp.arange(hidden.shape[1]))
    return {path: watch.by_path[path] for path in paths}
