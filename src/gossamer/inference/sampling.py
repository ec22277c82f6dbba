"""Choosing the next token from its scores."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: scores are divided by `temperature`, then cut to `top_k`, then `top_p`.

    Attributes:
        temperature: 0 takes the highest score (greedy); higher draws more evenly.
        top_k: keeps the k highest scores; None keeps all.
        top_p: keeps the fewest tokens, likeliest first, whose probabilities sum to at least this;
            None keeps all.

    Raises:
        ValueError: temperature < 0, top_k < 1 or top_p outside (0, 1].
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"Sampling needs temperature >= 0, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Sampling needs top_k >= 1, got {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling needs 0 < top_p <= 1, got {self.top_p}.")


def sample(logits: Float[Array, " V"], key: jax.Array, how: Sampling) -> Int[Array, ""]:
    """Draws a token; equal highest scores give the lower index when greedy.

    Example:
        >>> int(sample(jnp.array([0.0, 2.0, 1.0]), jax.random.key(0), Sampling()))
        1
    """
    if how.temperature == 0:
        return jnp.argmax(logits)
    logits = logits / how.temperature
    if how.top_k is not None:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p is not None:
        logits = keep_top_p(logits, how.top_p)
    return jax.random.categorical(key, logits)


def keep_top_k(logits: Float[Array, " V"], k: int) -> Float[Array, " V"]:
    """Sets all but the `k` highest scores to -inf; what ties with the k-th stays.

    Example:
        >>> keep_top_k(jnp.array([1.0, 3.0, 2.0]), 2)
        Array([-inf,   3.,   2.], dtype=float32)
    """
    lowest = jax.lax.top_k(logits, min(k, logits.shape[0]))[0][-1]
    return jnp.where(logits < lowest, -jnp.inf, logits)


def keep_top_p(logits: Float[Array, " V"], p: float) -> Float[Array, " V"]:
    """Keeps the fewest tokens, likeliest first, whose probabilities sum to at least `p`.

    What ties with the last of them stays.

    Example:
        >>> keep_top_p(jnp.log(jnp.array([0.5, 0.3, 0.2])), 0.6)
        Array([-0.6931472, -1.2039728,       -inf], dtype=float32)

    Source: Holtzman et al. 2019, arXiv 1904.09751 (nucleus sampling).
    """
    ranked = jnp.sort(logits, descending=True)
    probabilities = jax.nn.softmax(ranked)
    before = jnp.cumsum(probabilities) - probabilities
    lowest = ranked[jnp.maximum(jnp.sum(before < p), 1) - 1]
    return jnp.where(logits < lowest, -jnp.inf, logits)
