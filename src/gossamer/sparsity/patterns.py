"""Sparsity patterns: values that turn the scores of a kernel into a mask.

Conventions: a mask is boolean and True means *keep*; equal scores keep the lower index, so that
all backends agree; a NaN score counts as the highest, so that a broken weight stays visible. For
a kernel `[in, out]` the axis is 0, the one that the matrix product sums over.

While a schedule tightens a pattern it asks for a share of it, `progress`: 0 keeps everything, 1 is
the pattern itself. A share may be traced, so a schedule never compiles again.

Source: Zhou et al. 2021, arXiv 2102.04010 (N:M); Mishra et al. 2021, arXiv 2104.08378 (2:4).
"""

import dataclasses
import math
from fractions import Fraction
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.sparsity.selection import keep_highest, score_bits

Share: TypeAlias = float | Float[Array, ""]
"""How much of a pattern's sparsity is asked for, in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class NM:
    """Keeps `n` of every `m` consecutive elements along an axis, 1 <= n <= m; prints as "n:m"."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise ValueError(f"NM needs 1 <= n <= m, got n={self.n}, m={self.m}.")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, in [0, 1)."""
        return 1 - self.n / self.m

    def check(self, shape: tuple[int, ...], axis: int) -> None:
        """Raises ValueError where `axis` does not divide into groups of `m`."""
        if shape[axis] % self.m:
            raise ValueError(
                f"{self} needs the length of axis {axis} to be a multiple of {self.m}, got "
                f"{shape[axis]} in shape {shape}; pad the axis or keep this weight dense."
            )

    def mask(
        self, scores: Float[Array, "*dims"], axis: int, progress: Share = 1.0
    ) -> Bool[Array, "*dims"]:
        """Marks the `n` highest scores of every group along `axis`.

        Args:
            scores: importance of each weight.
            axis: the axis the matrix product sums over, 0 for a kernel `[in, out]`.
            progress: prunes `round(progress * (m - n))` of every group.

        Returns:
            True where the weight is kept, exactly `n` times in each group at the end.

        Raises:
            ValueError: the length of `axis` is not a multiple of `m`.

        Example:
            >>> NM(2, 4).mask(jnp.array([3.0, 1.0, 2.0, 2.0]), axis=0)
            Array([ True, False,  True, False], dtype=bool)
        """
        self.check(scores.shape, axis)
        shape, axis = scores.shape, axis % scores.ndim
        kept = self.m - _share(progress, self.m - self.n)
        keep = _keep_in_small_groups if self.m <= 16 else _keep_in_large_groups
        # Groups are not moved to the end: XLA would copy the scores to compare them there.
        split = (*shape[:axis], shape[axis] // self.m, self.m, *shape[axis + 1 :])
        return keep(_nan_highest(scores).reshape(split), axis + 1, kept).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Unstructured:
    """Prunes the fraction `sparsity` of lowest scores of the whole array, 0 <= sparsity < 1.

    The number of zeros is `floor(sparsity * size)`, exactly, with `sparsity` read as the fraction
    that was meant: 0.29 of 100 is 29 although the float product is below. To compare within each
    output only, as Wanda does, map over the outputs:
    `jax.vmap(pattern.mask, in_axes=(1, None), out_axes=1)`.
    """

    sparsity: float

    def __post_init__(self) -> None:
        _check_fraction(self, self.sparsity)

    def __str__(self) -> str:
        return f"{_percent(self.sparsity)} unstructured"

    def check(self, shape: tuple[int, ...], axis: int) -> None:
        """Accepts every shape."""

    def mask(
        self, scores: Float[Array, "*dims"], axis: int, progress: Share = 1.0
    ) -> Bool[Array, "*dims"]:
        """Marks the highest scores; `axis` is there for the other patterns and changes nothing.

        Example:
            >>> Unstructured(0.5).mask(jnp.array([1.0, 4.0, 3.0, 1.0]), axis=0)
            Array([False,  True,  True, False], dtype=bool)
        """
        return self.spread(_keep_highest(self.pool(scores, axis), self.sparsity, progress), axis)

    def kept(self, size: int, progress: Share = 1.0) -> int | Int[Array, ""]:
        """How many of `size` weights stay."""
        return size - _share(progress, pruned_count(self.sparsity, size))

    def pool(self, scores: Float[Array, "*dims"], axis: int) -> Float[Array, "*dims"]:
        """The score of each unit that is kept or pruned as one: here of each weight."""
        return scores

    def spread(self, keep: Bool[Array, "*dims"], axis: int) -> Bool[Array, "*dims"]:
        """What is kept of the weights when these units are."""
        return keep


@dataclasses.dataclass(frozen=True)
class Block:
    """Prunes the fraction `sparsity` of blocks of `shape` (reduction axis, other axis).

    A block's score is the sum of its elements' scores; for a kernel `[in, out]` and `axis=0`,
    `shape=(16, 1)` is sixteen consecutive inputs of one output.
    """

    sparsity: float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        _check_fraction(self, self.sparsity)
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"Block needs two positive lengths, got shape={self.shape}.")
        object.__setattr__(self, "shape", tuple(self.shape))

    def __str__(self) -> str:
        return f"{_percent(self.sparsity)} in blocks of {self.shape[0]}x{self.shape[1]}"

    def check(self, shape: tuple[int, ...], axis: int) -> None:
        """Raises ValueError where the last two axes do not divide into blocks."""
        if len(shape) != 2:
            raise ValueError(f"Block masks kernels of two axes, got shape {shape}.")
        lengths = (shape[axis], shape[1 - axis % 2])
        if any(length % block for length, block in zip(lengths, self.shape, strict=True)):
            raise ValueError(
                f"{self} needs axis {axis} to be a multiple of {self.shape[0]} and the other of "
                f"{self.shape[1]}, got {lengths[0]} and {lengths[1]} in shape {shape}."
            )

    def mask(
        self, scores: Float[Array, "rows cols"], axis: int, progress: Share = 1.0
    ) -> Bool[Array, "rows cols"]:
        """Marks the blocks with the highest sums, ties to the block that comes first.

        Raises:
            ValueError: an axis does not divide into blocks.

        Example:
            >>> Block(0.5, (2, 1)).mask(jnp.array([[1.0, 5.0], [2.0, 0.0]]), axis=0)
            Array([[False,  True],
                   [False,  True]], dtype=bool)
        """
        return self.spread(_keep_highest(self.pool(scores, axis), self.sparsity, progress), axis)

    def pool(
        self, scores: Float[Array, "rows cols"], axis: int
    ) -> Float[Array, "blockrows blockcols"]:
        """The sum of each block, in float32: rounded to bfloat16 sums tie."""
        self.check(scores.shape, axis)
        high, wide = self._lengths(axis)
        rows, cols = scores.shape
        blocks = scores.reshape(rows // high, high, cols // wide, wide)
        return blocks.sum(axis=(1, 3), dtype=jnp.float32)

    def spread(
        self, keep: Bool[Array, "blockrows blockcols"], axis: int
    ) -> Bool[Array, "rows cols"]:
        """What is kept of the weights when these blocks are."""
        high, wide = self._lengths(axis)
        return jnp.repeat(jnp.repeat(keep, high, axis=0), wide, axis=1)

    def _lengths(self, axis: int) -> tuple[int, int]:
        """The block's rows and columns."""
        return self.shape if axis % 2 == 0 else (self.shape[1], self.shape[0])


@dataclasses.dataclass(frozen=True)
class Channel:
    """Prunes the fraction `sparsity` of whole inputs (rows of a kernel `[in, out]`)."""

    sparsity: float

    def __post_init__(self) -> None:
        _check_fraction(self, self.sparsity)

    def __str__(self) -> str:
        return f"{_percent(self.sparsity)} of channels"

    def check(self, shape: tuple[int, ...], axis: int) -> None:
        """Accepts every shape."""

    def mask(
        self, scores: Float[Array, "*dims"], axis: int, progress: Share = 1.0
    ) -> Bool[Array, "*dims"]:
        """Marks the positions of `axis` whose scores, summed over the other axes, are highest.

        Example:
            >>> Channel(0.5).mask(jnp.array([[1.0, 1.0], [0.0, 3.0]]), axis=0)
            Array([[False, False],
                   [ True,  True]], dtype=bool)
        """
        keep = _keep_highest(self.pool(scores, axis), self.sparsity, progress)
        return jnp.broadcast_to(self.spread(keep, axis), scores.shape)

    def pool(self, scores: Float[Array, "*dims"], axis: int) -> Float[Array, "*units"]:
        """The sum of each input, in float32; the other axes have length 1."""
        others = tuple(i for i in range(scores.ndim) if i != axis % scores.ndim)
        return scores.sum(axis=others, keepdims=True, dtype=jnp.float32)

    def spread(self, keep: Bool[Array, "*dims"], axis: int) -> Bool[Array, "*dims"]:
        """What is kept of the inputs, to be broadcast over the other axes."""
        return keep


Pattern: TypeAlias = NM | Unstructured | Block | Channel


def _check_fraction(pattern: object, sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        name = type(pattern).__name__
        raise ValueError(f"{name} needs 0 <= sparsity < 1, got sparsity={sparsity}.")


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g}%"


def pruned_count(sparsity: float, size: int) -> int:
    """`floor(sparsity * size)`, exact for every ratio of integers up to 10^7."""
    return math.floor(Fraction(float(sparsity)).limit_denominator(10**9) * size)


def _nan_highest(scores: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    return jnp.where(jnp.isnan(scores), jnp.inf, scores)


def _share(progress: Share, final: int) -> int | Int[Array, ""]:
    """`round(progress * final)`, and exactly `final` from progress 1 on, whatever float32 says."""
    if isinstance(progress, int | float):
        return round(min(max(progress, 0), 1) * final)
    part = jnp.round(jnp.clip(progress, 0, 1) * final).astype(jnp.int32)
    return jnp.where(progress >= 1, final, part)


def _keep_in_small_groups(
    scores: Float[Array, "*dims"], axis: int, kept: int | Int[Array, ""]
) -> Bool[Array, "*dims"]:
    """Marks the `kept` highest along an axis, ties to the lower index.

    Every pair is compared, nothing sorted, and -0.0 ties with 0.0 (`lax.top_k` ranks it below).
    """
    mine, other = jnp.expand_dims(scores, axis), jnp.expand_dims(scores, axis + 1)
    m = scores.shape[axis]
    earlier = jnp.triu(jnp.ones((m, m), bool), 1).reshape(m, m, *[1] * (scores.ndim - axis - 1))
    rank = jnp.sum((other > mine) | ((other == mine) & earlier), axis=axis)
    return rank < kept


def _keep_in_large_groups(
    scores: Float[Array, "*dims"], axis: int, kept: int | Int[Array, ""]
) -> Bool[Array, "*dims"]:
    """The same, bit by bit.

    At m = 128 XLA would hold all pairs at once, 132 times the scores: 17 ms against 292 ms for a
    million weights on a CPU, 12 against 57 at m = 32, and 10 against 4 at m = 16.
    """
    groups = jnp.moveaxis(score_bits(scores), axis, -1)
    keep = jax.vmap(keep_highest, in_axes=(0, None))
    flat = keep(groups.reshape(-1, groups.shape[-1]), kept)
    return jnp.moveaxis(flat.reshape(groups.shape), -1, axis)


def _keep_highest(
    scores: Float[Array, "*dims"], sparsity: float, progress: Share
) -> Bool[Array, "*dims"]:
    """Marks all but the `floor(sparsity * size)` lowest, or a share; ties to the lower index."""
    kept = scores.size - _share(progress, pruned_count(sparsity, scores.size))
    return keep_highest(score_bits(_nan_highest(scores)), kept)
