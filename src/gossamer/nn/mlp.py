"""The feed-forward layer of two projections with biases."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Float

from gossamer.nn.linear import Linear

_TANH = functools.partial(jax.nn.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": _TANH,
    "gelu_pytorch_tanh": _TANH,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}
"""By the names of transformers, which has two for GELU by tanh."""


class Mlp(nnx.Module):
    r"""A feed-forward layer: :math:`\phi(x W_1 + b_1) W_2 + b_2`.

    Attributes:
        fc1: from D to F.
        fc2: from F to D.
        activation: phi, a name in `ACTIVATIONS`.
    """

    def __init__(
        self, hidden_size: int, intermediate_size: int, *, activation: str, rngs: nnx.Rngs
    ) -> None:
        self.fc1 = Linear(hidden_size, intermediate_size, bias=True, rngs=rngs)
        self.fc2 = Linear(intermediate_size, hidden_size, bias=True, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Transforms each token by itself."""
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))
