"""How the next token is chosen from its scores: pure functions of one vocabulary's logits.

The filters come in the usual order: temperature, then top-k, then top-p of what top-k left. A
filter sets the logits of tokens it drops to -inf. Where logits tie, the token of lower index stays.
"""

import dataclasses
import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Number: TypeAlias = float | Float[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the most likely token; higher is more random.
        top_k: choose among this many most likely tokens; None is all.
        top_p: choose among the fewest tokens whose probabilities reach this sum; None is all.

    Raises:
        ValueError: temperature < 0 or not finite, top_k < 1, or top_p outside (0, 1].
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"Sampling needs a finite temperature >= 0, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Sampling needs top_k >= 1, got {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling needs 0 < top_p <= 1, got {self.top_p}.")


@functools.partial(jax.jit, static_argnames="how")
def sample(logits: Float[Array, " V"], key: PRNGKeyArray, how: Sampling) -> Int[Array, ""]:
    """Chooses the next token; `key` is for this choice only, and unused at temperature 0.

    Example:
        >>> int(sample(jnp.array([0.0, 2.0, 1.0]), jax.random.key(0), Sampling()))
        1
    """
    if how.temperature == 0:
        return greedy(logits)
    logits = scale_temperature(logits, how.temperature)
    if how.top_k is not None:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p is not None:
        logits = keep_top_p(logits, how.top_p)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def greedy(logits: Float[Array, " V"]) -> Int[Array, ""]:
    """The most likely token.

    Example:
        >>> greedy(jnp.array([1.0, 3.0, 3.0]))
        Array(1, dtype=int32)
    """
    # XLA's argmax is a loop of scalars on a CPU: 0.22 ms for 49152 tokens, and this 0.03.
    places = lax.iota(jnp.int32, logits.shape[0])
    return jnp.min(jnp.where(logits == jnp.max(logits), places, logits.shape[0] - 1))


def scale_temperature(logits: Float[Array, " V"], temperature: Number) -> Float[Array, " V"]:
    """Divides by a temperature > 0; the highest becomes 0, so that no quotient overflows upwards.

    Example:
        >>> scale_temperature(jnp.array([1.0, 3.0]), 0.5)
        Array([-4.,  0.], dtype=float32)
    """
    return (logits - jnp.max(logits)) / temperature


def keep_top_k(logits: Float[Array, " V"], k: int) -> Float[Array, " V"]:
    """Keeps the `k` highest, or all where there are fewer.

    Example:
        >>> keep_top_k(jnp.array([1.0, 3.0, 2.0, 3.0]), 1)
        Array([-inf,   3., -inf, -inf], dtype=float32)
    """
    # Only the value of the last is used: `top_k` itself ranks -0.0 below 0.0 on the CPU.
    last = lax.top_k(logits, min(k, logits.shape[0]))[0][-1]
    above, tied = logits > last, logits == last
    keep = above | (tied & (jnp.cumsum(tied) <= k - jnp.sum(above)))
    return jnp.where(keep, logits, -jnp.inf)


def keep_top_p(logits: Float[Array, " V"], p: Number) -> Float[Array, " V"]:
    """Keeps the fewest tokens whose probabilities sum to `p` or more, 0 < p <= 1.

    Of tokens with equal float32 probabilities those of lower index come first.

    Example:
        >>> keep_top_p(jnp.log(jnp.array([0.125, 0.5, 0.25, 0.125])), 0.75)
        Array([      -inf, -0.6931472, -1.3862944,       -inf], dtype=float32)

    Source: nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751, section 3.1.
    """
    return jnp.where(_nucleus(jax.nn.softmax(logits), p), logits, -jnp.inf)


def _nucleus(probabilities: Float[Array, " V"], p: Number) -> Bool[Array, " V"]:
    """Marks the smallest set whose sum reaches `p`.

    Its lowest probability is found bit by bit, since floats >= 0 are ordered as their bits are.
    Tried: sorting; 11 ms instead of 0.5 ms for the 49152 tokens of SmolLM2 on one core.
    """
    bits = lax.bitcast_convert_type(probabilities, jnp.uint32)

    def mass(keep: Bool[Array, " V"]) -> Float[Array, ""]:
        return jnp.sum(jnp.where(keep, probabilities, 0))

    def raise_bit(i: Int[Array, ""], lowest: Array) -> Array:
        higher = lowest | (jnp.uint32(1) << (30 - i).astype(jnp.uint32))
        return jnp.where(mass(bits >= higher) >= p, higher, lowest)

    lowest = lax.fori_loop(0, 31, raise_bit, jnp.uint32(0))
    above, tied = bits > lowest, bits == lowest
    earlier = (jnp.cumsum(tied) - 1) * lax.bitcast_convert_type(lowest, jnp.float32)
    return above | (tied & (mass(above) + earlier < p))
