"""Layers that hold a kernel or a table: projection, embedding, learned positions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.weights import Kernel, beside, dot, take

INIT_STDDEV = 0.02
"""Standard deviation of a fresh kernel, as in GPT-2 and Llama."""


class CompressedParam(nnx.Variable):
    """A kernel of integer planes: no `nnx.Param`, so that gradients and optimizers pass it by."""


def _fresh(shape: tuple[int, int], stddev: float, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32))


class Linear(nnx.Module):
    """`x @ kernel + bias`, with the product left to the type of the kernel.

    Attributes:
        kernel: `[in, out]`, an array or a compressed weight.
        bias: `[out]`, or None.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        bias: bool = False,
        stddev: float = INIT_STDDEV,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = _fresh((in_size, out_size), stddev, rngs)
        self.bias = nnx.Param(jnp.zeros(out_size)) if bias else None

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Applies the projection."""
        y = dot(x, self.kernel.get_value())
        return y if self.bias is None else y + self.bias.get_value()


class FusedLinear(nnx.Module):
    """Several projections of the same input as one product.

    Attributes:
        kernel: `[in, sum of sizes]`, the kernels side by side.
        bias: `[sum of sizes]`, or None.
        sizes: outputs of each projection.
    """

    def __init__(self, kernel: Kernel, bias: jax.Array | None, sizes: tuple[int, ...]) -> None:
        self.kernel = variable(kernel)
        self.bias = None if bias is None else nnx.Param(bias)
        self.sizes = sizes

    def __call__(self, x: Float[Array, "*batch in"]) -> list[Float[Array, "*batch out"]]:
        """Applies all projections."""
        y = dot(x, self.kernel.get_value())
        if self.bias is not None:
            y = y + self.bias.get_value()
        return jnp.split(y, np.cumsum(self.sizes)[:-1], axis=-1)


def fuse(*layers: Linear) -> FusedLinear | None:
    """One layer in the place of several that have the same input, for running.

    None where the kernels are not stored alike, or only some have biases.
    """
    kernel = beside([layer.kernel.get_value() for layer in layers])
    biases = [layer.bias.get_value() for layer in layers if layer.bias is not None]
    if kernel is None or 0 < len(biases) < len(layers):
        return None
    sizes = tuple(layer.kernel.get_value().shape[-1] for layer in layers)
    return FusedLinear(kernel, jnp.concatenate(biases) if biases else None, sizes)


class QkvProjections(nnx.Module):
    """Queries, keys and values of the same tokens; one product where the kernels allow it.

    Attributes:
        q_proj: of queries; gone once fused.
        k_proj: of keys.
        v_proj: of values.
        qkv_proj: all three, once fused.
    """

    def __init__(
        self, in_size: int, queries: int, keys: int, *, bias: bool, rngs: nnx.Rngs
    ) -> None:
        self.q_proj = Linear(in_size, queries, bias=bias, rngs=rngs)
        self.k_proj = Linear(in_size, keys, bias=bias, rngs=rngs)
        self.v_proj = Linear(in_size, keys, bias=bias, rngs=rngs)
        self.qkv_proj: FusedLinear | None = None

    def fuse(self) -> None:
        """Projects queries, keys and values by one product, where their kernels allow it."""
        fused = fuse(self.q_proj, self.k_proj, self.v_proj)
        if fused is not None:
            self.qkv_proj = nnx.data(fused)
            del self.q_proj, self.k_proj, self.v_proj

    def heads(self, x: Float[Array, "B T D"], head_dim: int) -> list[Float[Array, "B T _ H"]]:
        """Queries, keys and values, cut in heads."""
        if self.qkv_proj is None:
            projected = [self.q_proj(x), self.k_proj(x), self.v_proj(x)]
        else:
            projected = self.qkv_proj(x)
        return [part.reshape(*x.shape[:2], -1, head_dim) for part in projected]


def variable(weight: Kernel) -> nnx.Variable:
    """The variable that holds a weight of this type."""
    return nnx.Param(weight) if isinstance(weight, jax.Array) else CompressedParam(weight)


class Embedding(nnx.Module):
    """Token vectors, stored as the kernel `[D, V]` of an output projection: tied models use both.

    Attributes:
        kernel: `[D, V]`, an array or a compressed weight.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        *,
        stddev: float = INIT_STDDEV,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = _fresh((hidden_size, vocab_size), stddev, rngs)

    def __call__(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch D"]:
        """Looks tokens up."""
        return take(self.kernel.get_value(), tokens)

    def logits(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Scores every token of the vocabulary, as the output projection of a tied model."""
        return dot(x, self.kernel.get_value())


class Positions(nnx.Module):
    """A learned vector for every position.

    Attributes:
        table: `[P, D]`; rows are positions, so it is no kernel and no recipe for kernels matches.
    """

    def __init__(self, rows: int, hidden_size: int, *, rngs: nnx.Rngs) -> None:
        self.table = _fresh((rows, hidden_size), INIT_STDDEV, rngs)

    def __call__(self, rows: Int[Array, "*batch"]) -> Float[Array, "*batch D"]:
        """Looks rows up; a row outside the table gives NaN, never its neighbour."""
        return jnp.take(self.table.get_value(), rows, axis=0, mode="fill")
