"""What a number format is: the one quantizer of training, post-training, packing and kernels.

Conventions: a scale brings the largest element of its group to the largest code, and is 1 where all
are 0; rounding is half to even; clipping comes before the cast.

Every division is written as a product with a float32 reciprocal: XLA turns a division by a constant
or by a broadcast array into one, and any other not, so that the same weight could get other codes
in another program.
"""

import abc
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Key, Num

from gossamer.quantization.minifloat import MINIFLOATS, MinifloatName
from gossamer.quantization.scales import SCALE_BITS, SMALLEST, ScaleType

Noise: TypeAlias = Float[Array, "rows columns"] | Key[Array, ""]
"""For stochastic rounding: a uniform number in [0, 1) for each element, or a key to draw them."""

Book: TypeAlias = tuple[int, ...] | MinifloatName
"""What stored codes stand for, by number: sixteen integers of choice, or small floats."""


class Codes(NamedTuple):
    """Numbers of few bits with their scales: what a kernel is when it is quantized.

    The value is `(codes - zeros) * scales * tensor_scale`, a group at a time. Groups run along
    `in`, in order, and have the length in / groups.

    Attributes:
        codes: one byte each: int8 where a format's elements are integers, an ml_dtypes float8
            where they are small floats (each value of FP4 and FP6 is one of E4M3).
        scales: float32 numbers that their storage type holds exactly.
        zeros: zero points, for asymmetric formats only.
        tensor_scale: one factor of all elements, or of each output, for formats that have one.
    """

    codes: Num[Array, "in out"]
    scales: Float[Array, "groups out"]
    zeros: Int8[Array, "groups out"] | None = None
    tensor_scale: Float[Array, " #out"] | None = None

    def decode(self) -> Float[Array, "in out"]:
        """The values, float32."""
        groups, out = self.scales.shape
        codes = self.codes.reshape(groups, -1, out).astype(jnp.float32)
        if self.zeros is not None:
            codes = codes - self.zeros[:, None, :].astype(jnp.float32)
        values = (codes * self.scales[:, None, :]).reshape(self.codes.shape)
        return values if self.tensor_scale is None else values * self.tensor_scale

    def masked(self, keep: Bool[Array, "in out"]) -> "Codes":
        """These codes with those that are not kept set to what stands for 0; scales stay."""
        zero = jnp.zeros((), self.codes.dtype)
        if self.zeros is not None:
            zero = jnp.repeat(self.zeros, self.codes.shape[0] // self.zeros.shape[0], axis=0)
        return self._replace(codes=jnp.where(keep, self.codes, zero))


class Format(abc.ABC):
    """Codes with a scale per output, or per group of elements along `in`.

    Attributes:
        bits: bits that a code is stored in.
        group: original elements that share a scale along the reduction axis; None is all of them.
        scale: how scales are stored.
        symmetric: False if every scale comes with a zero point.
    """

    bits: int
    group: int | None
    scale: ScaleType
    symmetric: bool

    @property
    def book(self) -> Book | None:
        """The codes that their bits stand for, by number; None where that is two's complement."""
        return None

    @property
    def code_dtype(self) -> np.dtype:
        """That of arrays of codes: int8, or the float8 that holds a small float's values."""
        return np.dtype(MINIFLOATS[self.book].holder if isinstance(self.book, str) else np.int8)

    @property
    @abc.abstractmethod
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest code."""

    @property
    @abc.abstractmethod
    def widest_step(self) -> float:
        """The largest distance of two neighbouring codes."""

    def _check(self) -> None:
        name = type(self).__name__
        if self.group is not None and self.group < 1:
            raise ValueError(f"{name} needs a group of at least 1 element, got group={self.group}.")
        if self.scale not in SCALE_BITS:
            raise ValueError(
                f"{name} needs a scale in {list(SCALE_BITS)}, got scale={self.scale!r}."
            )

    def _scales(self) -> str:
        group = "per channel" if self.group is None else f"groups of {self.group}"
        return f"{group}, {self.scale} scales"

    def groups(self, size: int) -> int:
        """How many groups an axis of `size` elements has.

        Raises:
            ValueError: `group` does not divide `size`.
        """
        if self.group is None:
            return 1
        if size % self.group:
            raise ValueError(
                f"{self} needs the reduction axis to be a multiple of {self.group}, got {size}; "
                "choose a group that divides it, or None for a scale per output."
            )
        return size // self.group

    def bits_per_element(self, size: int, outputs: int = 1) -> float:
        """Bits of a dense element with its share of scales and zero points.

        Args:
            size: elements along the reduction axis.
            outputs: how many such axes share a scale of the tensor, where the format has one.
        """
        per_group = SCALE_BITS[self.scale] + (0 if self.symmetric else 8)
        return self.bits + per_group * self.groups(size) / size

    def tensor_scale(self, kernel: Float[Array, "in out"]) -> Float[Array, " 1"] | None:
        """The factor that all elements are divided by first; None for formats without one."""
        return None

    @abc.abstractmethod
    def grid(
        self, groups: Float[Array, "groups group out"]
    ) -> tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]:
        """Chooses the scale, and the zero point if there are any, of each group.

        The elements are divided by the tensor's scale already, where there is one.
        """

    @abc.abstractmethod
    def nearest(
        self,
        scaled: Float[Array, "*dims"],
        zeros: Int8[Array, "*#dims"] | None = None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Num[Array, "*dims"]:
        """The codes of values that are divided by their scales.

        With `noise` that is the code towards 0 or the one beyond, the latter where the noise, of
        [0, 1), and the part of the step that is left add up to 1 or more; a value that a code
        represents never moves.
        """

    def round(
        self,
        values: Float[Array, "*dims"],
        scales: Float[Array, "*#dims"],
        zeros: Int8[Array, "*#dims"] | None,
        noise: Float[Array, "*dims"] | None = None,
    ) -> Num[Array, "*dims"]:
        """The codes of `values` on a given grid."""
        return self.nearest(values * (1 / scales), zeros, noise)

    def encode(self, kernel: Float[Array, "in out"], noise: Noise | None = None) -> Codes:
        """Rounds each element to a point of its group's grid.

        Args:
            kernel: finite values, any float dtype; computed in float32.
            noise: rounds stochastically, so that the mean of many draws is the value itself;
                None rounds to nearest, ties to even.

        Raises:
            ValueError: `group` does not divide the reduction axis; `noise` is of another shape.
        """
        groups = self.groups(kernel.shape[0])
        draws = None if noise is None else _uniform(noise, kernel.shape)
        values = kernel.astype(jnp.float32)
        tensor_scale = self.tensor_scale(values)
        if tensor_scale is not None:
            values = values * (1 / tensor_scale)
        blocks = values.reshape(groups, -1, kernel.shape[1])
        scales, zeros = self.grid(blocks)
        codes = self.round(
            blocks,
            scales[:, None, :],
            None if zeros is None else zeros[:, None, :],
            None if draws is None else draws.reshape(blocks.shape),
        )
        return Codes(codes.reshape(kernel.shape), scales, zeros, tensor_scale)

    def decode(self, codes: Codes) -> Float[Array, "in out"]:
        """The values that codes of this format stand for."""
        return codes.decode()

    def quantize(
        self, kernel: Float[Array, "in out"], noise: Noise | None = None
    ) -> Float[Array, "in out"]:
        """The values that the codes of a kernel stand for: `encode`, then `decode`."""
        return self.decode(self.encode(kernel, noise))

    def error_bound(
        self, kernel: Float[Array, "in out"], *, stochastic: bool = False
    ) -> Float[Array, "groups out"]:
        """How far off, at most, `quantize` puts any element of each group.

        Half the widest step, or what the group's ends lie outside the grid; a whole step when
        rounding is stochastic. 2^-22 of the largest element is added for float32's own rounding.

        Raises:
            ValueError: `group` does not divide the reduction axis.
        """
        codes = self.encode(kernel)
        unit = codes.scales if codes.tensor_scale is None else codes.scales * codes.tensor_scale
        groups = kernel.astype(jnp.float32).reshape(unit.shape[0], -1, kernel.shape[1])
        zeros = 0 if codes.zeros is None else codes.zeros.astype(jnp.float32)
        low, high = (unit * (end - zeros) for end in self.ends)
        outside = jnp.maximum(jnp.max(groups, axis=1) - high, low - jnp.min(groups, axis=1))
        step = unit * np.float32(self.widest_step * (1.0 if stochastic else 0.5))
        slack = jnp.max(jnp.abs(groups), axis=1) * np.float32(2.0**-22) + np.float32(SMALLEST)
        return jnp.maximum(step, outside) + slack


def _uniform(noise: Noise, shape: tuple[int, ...]) -> Float[Array, "rows columns"]:
    if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
        return jax.random.uniform(noise, shape)
    if noise.shape != shape:
        raise ValueError(
            f"Stochastic rounding of a kernel {shape} needs a uniform number for each element, or "
            f"a key, got noise of shape {noise.shape}."
        )
    return noise
