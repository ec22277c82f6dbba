"""Masks of a kernel `[in, out]` by the simple scores: magnitude, Wanda, random. True means keep.

N:M groups, blocks and channels lie along `in`. Ties keep the lower index, as everywhere here. What
stays is rounded to nearest where there is a format: pruning comes first, so that no mask is spoilt
by rounding (Harma et al. 2024, arXiv 2405.20935).
"""

import dataclasses
import functools
import zlib
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.compression.methods.method import Method, Solved, Task
from gossamer.compression.methods.rtn import nearest
from gossamer.quantization import Codes
from gossamer.sparsity import Pattern, Unstructured, magnitude, random, wanda


@dataclasses.dataclass(frozen=True, kw_only=True)
class Magnitude(Method):
    """Keeps the largest weights."""

    name: ClassVar[str] = "magnitude"
    calibrated: ClassVar[bool] = False

    def compress(self, task: Task) -> Solved:
        """Prunes, then rounds."""
        pattern = task.rule.pattern
        mask = None if pattern is None else magnitude_mask(task.kernel, pattern)
        return nearest(task.kernel, mask, task.rule.weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Random(Method):
    """Keeps any weights; the baseline that every score must beat."""

    name: ClassVar[str] = "random"
    calibrated: ClassVar[bool] = False

    def compress(self, task: Task) -> Solved:
        """Prunes, then rounds; the draw does not depend on other kernels."""
        key = jax.random.fold_in(jax.random.key(task.seed), zlib.crc32(task.path.encode()))
        pattern = task.rule.pattern
        mask = None if pattern is None else random_mask(task.kernel, key, pattern)
        return nearest(task.kernel, mask, task.rule.weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanda(Method):
    """Keeps the largest products of weight and input norm."""

    name: ClassVar[str] = "wanda"

    def compress(self, task: Task) -> Solved:
        """Prunes, then rounds."""
        return nearest(task.kernel, task_mask(task), task.rule.weights)


def task_mask(task: Task) -> Bool[Array, "in out"] | None:
    """Wanda's mask of a kernel; None where its rule has no pattern."""
    if task.rule.pattern is None:
        return None
    return wanda_mask(task.kernel, jnp.sqrt(jnp.diag(task.hessian)), task.rule.pattern)


@functools.partial(jax.jit, static_argnames="pattern")
def magnitude_mask(kernel: Float[Array, "in out"], pattern: Pattern) -> Bool[Array, "in out"]:
    """Keeps the largest weights; `Unstructured` compares all weights of the kernel.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> magnitude_mask(jnp.array([[3.0], [-4.0], [0.5], [1.0]]), NM(2, 4)).ravel()
        Array([ True,  True, False, False], dtype=bool)
    """
    return pattern.mask(magnitude(kernel), 0)


@functools.partial(jax.jit, static_argnames="pattern")
def wanda_mask(
    kernel: Float[Array, "in out"], input_norm: Float[Array, " in"], pattern: Pattern
) -> Bool[Array, "in out"]:
    """Keeps the weights with the highest magnitude x input norm; no weight is changed.

    `Unstructured` compares within each output, which loses floor(sparsity x in) weights.

    Args:
        kernel: the dense weights.
        input_norm: root of the sum, or mean, of the squares of each input, >= 0.
        pattern: what the mask looks like.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> norm = jnp.array([1.0, 1.0, 9.0, 1.0])
        >>> wanda_mask(jnp.array([[3.0], [-4.0], [0.5], [1.0]]), norm, NM(2, 4)).ravel()
        Array([False,  True,  True, False], dtype=bool)

    Source: Sun et al. 2023, arXiv 2306.11695, and its released code. On ties the released code
    prunes the lower index (a stable ascending sort); here the lower index is kept.
    """
    scores = wanda(kernel, input_norm)
    if isinstance(pattern, Unstructured):
        return jax.vmap(pattern.mask, in_axes=(1, None), out_axes=1)(scores, 0)
    return pattern.mask(scores, 0)


@functools.partial(jax.jit, static_argnames="pattern")
def random_mask(
    kernel: Float[Array, "in out"], key: jax.Array, pattern: Pattern
) -> Bool[Array, "in out"]:
    """Keeps weights drawn from `key`: the baseline that every score must beat.

    Raises:
        ValueError: the pattern does not fit the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.sparsity import NM
        >>> int(random_mask(jnp.ones((8, 3)), jax.random.key(0), NM(2, 4)).sum())
        12
    """
    return pattern.mask(random(kernel, key), 0)


def prune_codes(
    codes: Codes, kernel: Float[Array, "in out"], pattern: Pattern
) -> tuple[Codes, Bool[Array, "in out"]]:
    """Prunes a kernel that is quantized already, by the magnitudes that it had before.

    For pipelines that must quantize first: rounding blurs which weights are largest, and a mask of
    the rounded weights drops some of them. With this mask nothing is lost by the order: where every
    group of M lies within one scale and the format is symmetric, the codes are those of pruning
    first, bit for bit.

    Args:
        codes: of the kernel, not pruned.
        kernel: the weights before they were rounded.
        pattern: what the mask looks like.

    Returns:
        The codes with 0 for what is pruned, and the mask.

    Raises:
        ValueError: the shapes differ, or the pattern does not fit them.

    Example:
        >>> import jax.numpy as jnp
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> kernel = jnp.array([[7.0], [0.6], [1.4], [0.1]])
        >>> codes = Int(4).encode(kernel)  # 7, 1, 1, 0
        >>> prune_codes(codes, kernel, NM(2, 4))[0].codes.ravel()
        Array([7, 0, 1, 0], dtype=int8)

    Source: the corollary of theorems 3.5 and 3.6 of Harma et al. 2024, arXiv 2405.20935, derived
    anew; asymmetric grids, whose end a mask can drop, are no part of it.
    """
    if codes.codes.shape != kernel.shape:
        raise ValueError(
            f"Codes {codes.codes.shape} are not those of a kernel {kernel.shape}: give the kernel "
            "that they were rounded from."
        )
    mask = magnitude_mask(kernel, pattern)
    return codes.masked(mask), mask
