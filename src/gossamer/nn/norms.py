"""Normalization over the last axis, in float32; what comes out has the dtype of what goes in."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class RMSNorm(nnx.Module):
    r"""Divides by the root mean square: :math:`y = s \, x / \sqrt{\mathrm{mean}(x^2) + \epsilon}`.

    Attributes:
        scale: `[D]`.
        epsilon: added to the mean square.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4, with epsilon as Llama places it.
    """

    def __init__(self, size: int, *, epsilon: float) -> None:
        self.scale = nnx.Param(jnp.ones(size))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalizes each vector."""
        return rms_norm(x, self.scale.get_value(), self.epsilon)


def rms_norm(
    x: Float[Array, "*batch D"], scale: Float[Array, " D"], epsilon: float
) -> Float[Array, "*batch D"]:
    """What `RMSNorm` computes."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * lax.rsqrt(mean_square + epsilon) * scale).astype(x.dtype)


class LayerNorm(nnx.Module):
    r"""Takes off the mean, divides by the deviation: :math:`y = s (x - \mu) / \sqrt{\sigma^2 +
    \epsilon} + b`.

    Attributes:
        scale: `[D]`.
        bias: `[D]`.
        epsilon: added to the variance.

    Source: Ba et al. 2016, arXiv 1607.06450, eq. 3 and 4, with epsilon as PyTorch places it.
    """

    def __init__(self, size: int, *, epsilon: float) -> None:
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalizes each vector."""
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        scaled = centred * lax.rsqrt(variance + self.epsilon) * self.scale.get_value()
        return (scaled + self.bias.get_value()).astype(x.dtype)
