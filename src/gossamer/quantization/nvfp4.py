"""NVFP4: four-bit floats with two levels of scales."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

from gossamer.quantization.formats import Format
from gossamer.quantization.minifloat import MINIFLOATS, MinifloatName, nearest_minifloat
from gossamer.quantization.scales import SMALLEST, ScaleType

_LARGEST = 6.0
_LARGEST_SCALE = 448.0
_SMALLEST_SCALE = 2.0**-6


@dataclasses.dataclass(frozen=True)
class NVFP4(Format):
    r"""E2M1 with an E4M3 scale for every block of 16 and a float32 scale g for the tensor.

    .. math:: g = \max |x| / 2688, \quad s_b = \text{E4M3}(\max_b |x| / (6 g)), \quad
        p = \text{E2M1}(x / (s_b g))

    The value is p s_b g. Block scales are rounded to nearest and are 2^-6 or more, the smallest
    normal E4M3 number, as in torchao; a tensor of zeros has g = 1.

    Attributes:
        group: original elements of a block; None is all of the reduction axis. NVIDIA's is 16.

    Example:
        >>> block = jnp.zeros((16, 1)).at[:3, 0].set(jnp.array([2688.0, -1000.0, 400.0]))
        >>> NVFP4().quantize(block)[:3].ravel()
        Array([2688., -896.,  448.], dtype=float32)

    Source: the released code of torchao (`nvfp4_tensor`) and of NVIDIA Model-Optimizer; no
    specification was at hand. x is divided by g first and then by the block's scale: in another
    order the last bit of a quotient, and so a tie, may differ.
    """

    group: int | None = 16

    bits: int = dataclasses.field(default=4, init=False)
    scale: ScaleType = dataclasses.field(default="e4m3", init=False)
    symmetric: bool = dataclasses.field(default=True, init=False)

    def __post_init__(self) -> None:
        self._check()

    def __str__(self) -> str:
        return "NVFP4" if self.group == 16 else f"NVFP4, {self._scales()}"

    @property
    def book(self) -> MinifloatName:
        """The float whose bits are stored."""
        return "e2m1"

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""
        return -_LARGEST, _LARGEST

    @property
    def widest_step(self) -> float:
        """Between 4 and 6."""
        return MINIFLOATS["e2m1"].widest_step

    def bits_per_element(self, size: int, outputs: int = 1) -> float:
        """Bits of an element with its share of the block's and of the tensor's scale."""
        return super().bits_per_element(size) + 32 / (size * outputs)

    def tensor_scale(self, kernel: Float[Array, "in out"]) -> Float[Array, " 1"]:
        """The scale g of the tensor."""
        absmax = jnp.max(jnp.abs(kernel)).reshape(1)
        scale = absmax * np.float32(1 / (_LARGEST * _LARGEST_SCALE))
        return jnp.where(absmax == 0, 1.0, jnp.maximum(scale, SMALLEST))

    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], None]:
        """The scale of each block; the elements are divided by g already."""
        absmax = jnp.max(jnp.abs(groups), axis=1)
        scale = jnp.clip(absmax * np.float32(1 / _LARGEST), _SMALLEST_SCALE, _LARGEST_SCALE)
        return scale.astype(jnp.float8_e4m3fn).astype(jnp.float32), None

    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Num[Array, "*dims"]:
        """The floats nearest to values that are divided by their scales."""
        assert zeros is None
        return nearest_minifloat(scaled, "e2m1", noise)
