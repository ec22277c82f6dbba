"""Rotary position embedding, with the frequency scaling of Llama 3.1 and later."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Slows the frequencies whose wavelength is long against the context of pre-training.

    Attributes:
        factor: by how much the slowest frequencies are divided, >= 1.
        low_frequency_factor: wavelengths above `original_positions` / this are divided in full.
        high_frequency_factor: wavelengths below `original_positions` / this stay; between the
            two the division fades in.
        original_positions: tokens of the context of pre-training.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"Llama3Scaling needs factor >= 1, got factor={self.factor}.")
        if not 0 < self.low_frequency_factor < self.high_frequency_factor:
            raise ValueError(
                "Llama3Scaling needs 0 < low_frequency_factor < high_frequency_factor, got "
                f"{self.low_frequency_factor} and {self.high_frequency_factor}."
            )
        if self.original_positions < 1:
            raise ValueError(
                f"Llama3Scaling needs original_positions >= 1, got {self.original_positions}."
            )

    def apply(self, frequencies: Float[np.ndarray, " half"]) -> Float[np.ndarray, " half"]:
        r"""Scales frequencies f, in radians per token.

        .. math:: f' = (1 - t) f / \mathrm{factor} + t f, \quad
            t = \mathrm{clip}\Big(\frac{L f / 2 \pi - \mathrm{low}}{\mathrm{high} -
            \mathrm{low}}, 0, 1\Big)

        where L is `original_positions`. Source: the released code of Llama 3.1 (`apply_scaling` in
        `llama_models`), its three branches written as one clip.
        """
        turns = self.original_positions * frequencies / (2 * math.pi)  # within that context
        low, high = self.low_frequency_factor, self.high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotary:
    """How positions turn queries and keys.

    Attributes:
        theta: the base of the wavelengths, > 1.
        scaling: None leaves the frequencies.
    """

    theta: float = 10000.0
    scaling: Llama3Scaling | None = None

    def __post_init__(self) -> None:
        if not self.theta > 1:
            raise ValueError(f"Rotary needs theta > 1, got theta={self.theta}.")

    def frequencies(self, head_dim: int) -> Float[np.ndarray, " half"]:
        r"""Radians per token of each pair, :math:`\theta^{-2i/H}`, before `scaling`.

        Example:
            >>> Rotary(theta=100.0).frequencies(4)
            array([1. , 0.1])
        """
        plain = self.theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        return plain if self.scaling is None else self.scaling.apply(plain)

    def cos_sin(
        self, positions: Int[Array, " T"], head_dim: int
    ) -> tuple[Float[Array, "T half"], Float[Array, "T half"]]:
        """Cosine and sine of each pair's angle at each position."""
        frequencies = jnp.asarray(self.frequencies(head_dim), jnp.float32)
        angles = positions.astype(jnp.float32)[:, None] * frequencies
        # Otherwise XLA computes them again for every number of every head that they turn.
        return lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))


def rotate(
    x: Float[Array, "B T N H"], cos: Float[Array, "T half"], sin: Float[Array, "T half"]
) -> Float[Array, "B T N H"]:
    """Turns the pairs `(x[i], x[i + H / 2])` of every head by their angles.

    Source: Su et al. 2021, arXiv 2104.09864, eq. 34, with the pairs as Hugging Face lays them out:
    Meta's weights and GGUF files pair neighbours, and their loaders reorder the rows.
    """
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
