"""What the kernels of a block are multiplied by: statistics of their inputs, without touching the
model. A kernel is replaced by one that notes its input and then multiplies as before: the seam
makes this a weight type like any other.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gossamer.compression.hessian import gram
from gossamer.inference.blockwise import batches
from gossamer.models import Block, Flow
from gossamer.weights import Kernel, dot, materialize, take


class InputStatistics(NamedTuple):
    r"""What is known of the inputs of a kernel, over all tokens but padding.

    Attributes:
        gram: :math:`X^T X`.
        absmax: largest magnitude of each channel.
        absmean: mean magnitude of each channel.
    """

    gram: Float[Array, "in in"]
    absmax: Float[Array, " in"]
    absmean: Float[Array, " in"]


class _Sums(NamedTuple):
    """Of `InputStatistics`, over some of the tokens."""

    gram: Float[Array, "in in"]
    absmax: Float[Array, " in"]
    abssum: Float[Array, " in"]
    tokens: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Observed:
    """A kernel that notes what it is multiplied by; it lives inside one trace only."""

    kernel: Kernel
    path: str
    seen: dict[str, Array]

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
        self.seen[self.path] = x
        return dot(x, self.kernel)

    def take(self, indices: jax.Array, /) -> jax.Array:
        return take(self.kernel, indices)

    def materialize(self) -> jax.Array:
        return materialize(self.kernel)


def input_statistics(
    block: Block, flow: Flow, paths: Sequence[str]
) -> Mapping[str, InputStatistics]:
    """Measures the inputs of kernels of a block over all tokens but padding.

    Args:
        block: a model's block.
        flow: what enters it.
        paths: dotted paths of kernels within the block.

    Returns:
        Path -> statistics; kernels with the same input have the same.
    """
    graph, state = nnx.split(block)
    total: dict[str, _Sums] = {}
    for part in batches(flow):
        real = {path: block.real_tokens(path, part) for path in paths}
        seen = _statistics(graph, state, part, tuple(paths), real)
        total = {path: _merged(total[path], seen[path]) for path in paths} if total else seen
    return {
        path: InputStatistics(each.gram, each.absmax, each.abssum / each.tokens)
        for path, each in total.items()
    }


def kernel_inputs(
    block: nnx.Module, flow: Flow, paths: Sequence[str]
) -> Mapping[str, Float[Array, "B T in"]]:
    """The inputs of kernels of a block themselves, for few tokens.

    Args:
        block: a model's block.
        flow: what enters it.
        paths: dotted paths of kernels within the block.
    """
    graph, state = nnx.split(block)
    return _inputs_compiled(graph, state, flow, tuple(paths))


def _merged(total: _Sums, seen: _Sums) -> _Sums:
    return _Sums(
        total.gram + seen.gram,
        jnp.maximum(total.absmax, seen.absmax),
        total.abssum + seen.abssum,
        total.tokens + seen.tokens,
    )


def _inputs(
    graph: nnx.GraphDef, state: nnx.State, flow: Flow, paths: tuple[str, ...]
) -> dict[str, Float[Array, "B T in"]]:
    block = nnx.merge(graph, state)
    seen: dict[str, Array] = {}
    for path in paths:
        *parents, name = path.split(".")
        variable = getattr(functools.reduce(getattr, parents, block), name)
        variable.set_value(_Observed(variable.get_value(), path, seen))
    block.through(flow)
    return {path: seen[path] for path in paths}


_inputs_compiled = jax.jit(_inputs, static_argnums=(0, 3))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _statistics(
    graph: nnx.GraphDef,
    state: nnx.State,
    flow: Flow,
    paths: tuple[str, ...],
    real: Mapping[str, Bool[Array, "B T"] | None],
) -> dict[str, _Sums]:
    inputs = _inputs(graph, state, flow, paths)
    # Kernels that share an input share its statistics; the traced arrays live until here, so that
    # no two have the same id.
    by_input = {id(x): _of(x, real[path]) for path, x in inputs.items()}
    return {path: by_input[id(x)] for path, x in inputs.items()}


def _of(x: Float[Array, "B T in"], real: Bool[Array, "B T"] | None) -> _Sums:
    tokens = jnp.asarray(x.shape[0] * x.shape[1], jnp.float32)
    if real is not None:
        tokens = jnp.sum(real, dtype=jnp.float32)
        x = jnp.where(real[..., None], x, 0)  # adds nothing to sums, and no magnitude is smaller
    magnitudes = jnp.abs(x).reshape(-1, x.shape[-1])
    return _Sums(gram(x), jnp.max(magnitudes, axis=0), jnp.sum(magnitudes, axis=0), tokens)
