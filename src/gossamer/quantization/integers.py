"""Integer codes."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8

from gossamer.quantization.clipping import ClipSearch
from gossamer.quantization.formats import Format
from gossamer.quantization.rounding import round_steps
from gossamer.quantization.scales import ScaleType, round_scale


@dataclasses.dataclass(frozen=True)
class Int(Format):
    """Integers of `bits` with a scale per output, or per `group` of elements along `in`.

    Attributes:
        bits: bits of a code, 2 to 8.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored; codes are computed with the stored scale.
        symmetric: False adds an integer zero point per scale and fits the grid to minimum and
            maximum of the group, both widened to include 0, so that 0 stays exact.
        clip: None has the grid reach to the largest element; a search lets it end before where
            that makes the error less.

    Example:
        >>> Int(4).encode(jnp.array([[7.0], [1.4], [-0.6]])).codes.ravel()
        Array([ 7,  1, -1], dtype=int8)
    """

    bits: int
    group: int | None = None
    scale: ScaleType = "float32"
    symmetric: bool = True
    clip: ClipSearch | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"Int needs 2 <= bits <= 8, got bits={self.bits}.")
        self._check()

    def __str__(self) -> str:
        grid = "" if self.symmetric else " asymmetric"
        clip = "" if self.clip is None else ", clip search"
        return f"int{self.bits}{grid}, {self._scales()}{clip}"

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""
        return float(self.qmin), float(self.qmax)

    @property
    def widest_step(self) -> float:
        """1: codes are whole numbers."""
        return 1.0

    @property
    def qmax(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1

    @property
    def qmin(self) -> int:
        """The lowest code: -qmax, or one lower where a zero point shifts the grid."""
        return -self.qmax if self.symmetric else -self.qmax - 1

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]:
        """Chooses the scale, and the zero point of an asymmetric grid, of each group.

        Source: symmetric, absmax / qmax. Asymmetric, the min/max grid of Frantar et al. 2022
        (arXiv 2210.17323, released code) with codes shifted to be signed.
        """
        if self.clip is None:
            return self._reaching(groups, np.float32(1))
        return self.clip.choose(groups, self._reaching, self.round)

    def _reaching(
        self, groups: Float[Array, "groups group out"], share: Float[Array, ""] | np.float32
    ) -> tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]:
        """The grid whose ends lie at a share of the largest elements."""
        if self.symmetric:
            reach = jnp.max(jnp.abs(groups), axis=1) * share
            return round_scale(reach * np.float32(1 / self.qmax), self.scale), None
        low = jnp.minimum(jnp.min(groups, axis=1), 0) * share
        high = jnp.maximum(jnp.max(groups, axis=1), 0) * share
        scales = round_scale((high - low) * np.float32(1 / (2**self.bits - 1)), self.scale)
        zeros = jnp.clip(jnp.round(-low * (1 / scales)) + self.qmin, self.qmin, self.qmax)
        return scales, zeros.astype(jnp.int8)

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Int8[Array, "*dims"]:
        """The codes of values that are divided by their scales: rounded, clipped, then cast.

        Example:
            >>> Int(4).nearest(jnp.array([0.5, 1.5, -9.0]))
            Array([ 0,  2, -7], dtype=int8)
        """
        codes = round_steps(scaled, noise)
        if zeros is not None:
            codes = codes + zeros
        return jnp.clip(codes, self.qmin, self.qmax).astype(jnp.int8)
