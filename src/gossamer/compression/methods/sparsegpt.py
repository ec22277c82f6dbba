r"""SparseGPT: one sweep over a kernel's inputs that prunes, quantizes and compensates.

Inputs are taken in order. What an input's weights lose by pruning and rounding is divided by the
inputs still to come, such that the output on the calibration inputs changes least. Without a
pattern this is GPTQ; with both, a weight is pruned first and what stays is rounded.

With U the upper factor of :mod:`gossamer.compression.hessian`, for input i:

.. math:: e_i = (w_i - q_i) / U_{ii}, \qquad w_j \leftarrow w_j - U_{ij} e_i \quad (j > i)

Source: Frantar and Alistarh 2023, arXiv 2301.00774 (SparseGPT), algorithm 1; Frantar et al. 2022,
arXiv 2210.17323 (GPTQ). Equations and rules from the released code; their kernels are `[out, in]`.
"""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.hessian import raised_inverse_factor
from gossamer.compression.methods._sweep import in_tensor_scale, sweep
from gossamer.compression.methods.method import Method, Solved, Task
from gossamer.quantization import Codes, Format
from gossamer.recipe import Rule
from gossamer.sparsity import NM, Pattern, Unstructured


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseGPT(Method):
    """Prunes and rounds input by input, and makes up for both with the inputs still to come.

    Attributes:
        damping: share of the Hessian's mean diagonal that is added to its diagonal, > 0.
    """

    name: ClassVar[str] = "sparsegpt"
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.name, self.damping)

    def why_not(self, rule: Rule) -> str | None:
        """It chooses N:M and unstructured masks, and none inside a group of scales."""
        return _why_not(rule.pattern, rule.weights)

    def compress(self, task: Task) -> Solved:
        """Solves."""
        pattern = task.rule.pattern
        solved = sparsegpt(
            task.kernel,
            task.hessian,
            pattern=pattern,
            format=task.rule.weights,
            damping=self.damping,
        )
        return solved if pattern is not None else solved._replace(mask=None)


def sparsegpt(
    kernel: Float[Array, "in out"],
    gram: Float[Array, "rows cols"],
    *,
    pattern: Pattern | None,
    format: Format | None,
    damping: float = 0.01,
    block: int = 128,
) -> Solved:
    """Compresses a kernel so that its output on the calibration inputs changes least.

    `NM` masks are chosen when the sweep reaches a group of M, from the weights as compensated by
    then. `Unstructured` masks are chosen a block of inputs at a time, over all outputs together:
    what is not above the score of rank floor(sparsity x size), counted from 0, is pruned, so one
    weight more than that in each block, and more on ties. The score is :math:`w^2 / U_{ii}^2`.

    A format without groups has its grid fitted to the dense kernel, before pruning. With groups
    the grid is fitted when the sweep reaches the group, to its compensated weights.

    Args:
        kernel: the dense weights, finite; computed in float32.
        gram: sum of the outer products of the inputs, or any positive multiple of it.
        pattern: which weights stay; None keeps all.
        format: what to round to; None leaves floats.
        damping: share of the mean diagonal of `gram` that is added to its diagonal, > 0.
        block: inputs that share an `Unstructured` threshold, and a matrix product; rounded up to
            a multiple of M and of the format's group.

    Returns:
        Values, mask and codes; pruned weights are exact zeros. Inputs that never fire get zeros.
        The damping is `damping` or, where the matrix is not positive definite with it, more.

    Raises:
        ValueError: NaN or Inf, shapes or lengths that do not fit, a pattern that the sweep cannot
            choose, a damping or a block that is not positive; a matrix that no damping mends.
    """
    check_solve("sparsegpt", kernel, gram, format, damping, block)
    if reason := _why_not(pattern, format):
        raise ValueError(reason)
    if pattern is not None:
        pattern.check(kernel.shape, 0)
    dead = jnp.diag(gram) == 0
    factor, damping = raised_inverse_factor(np.asarray(gram), damping)
    dense, tensor_scale = in_tensor_scale(kernel.astype(jnp.float32), format)
    part = sweep(
        jnp.where(dead[:, None], 0, dense),
        jnp.asarray(factor, jnp.float32),
        None if format is None or format.group is not None else format.grid(dense[None]),
        pattern=pattern,
        format=format,
        block=min(whole_groups(block, pattern, format), kernel.shape[0]),
    )
    if format is None:
        return Solved(part.result, part.keep, None, damping)
    scales, zeros = part.fitted()
    codes = Codes(part.result, scales, zeros, tensor_scale)
    return Solved(codes.decode(), part.keep, codes, damping)


def _why_not(pattern: Pattern | None, format: Format | None) -> str | None:
    if pattern is not None and not isinstance(pattern, NM | Unstructured):
        return (
            f"sparsegpt chooses weights one input at a time and cannot choose {pattern}; use "
            "Wanda or magnitude for this pattern, or an N:M or unstructured one here."
        )
    group = None if format is None else format.group
    if isinstance(pattern, NM) and group is not None and group % pattern.m:
        return (
            f"sparsegpt needs groups of scales that hold whole groups of {pattern}, got "
            f"group={group}; choose a multiple of {pattern.m}, or None."
        )
    return None


def check_solve(
    name: str,
    kernel: Float[Array, "in out"],
    gram: Float[Array, "rows cols"],
    format: Format | None,
    damping: float,
    block: int,
) -> None:
    """Raises ValueError where a kernel, its Gram matrix and a format do not belong together."""
    size = kernel.shape[0]
    if gram.shape != (size, size):
        raise ValueError(
            f"A kernel {kernel.shape} needs a Gram matrix {(size, size)}, got {gram.shape}."
        )
    for what, array in (("kernel", kernel), ("Gram matrix", gram)):
        if not bool(jnp.isfinite(array).all()):
            raise ValueError(f"The {what} {array.shape} holds NaN or Inf.")
    check_damping(name, damping)
    if block < 1:
        raise ValueError(f"{name} needs block >= 1, got {block}.")
    if format is not None:
        format.groups(size)


def check_damping(name: str, damping: float) -> None:
    """Raises ValueError where a damping is not positive and finite."""
    if not 0 < damping < math.inf:
        raise ValueError(f"{name} needs a finite damping > 0, got {damping}.")


def whole_groups(block: int, pattern: Pattern | None, format: Format | None) -> int:
    """Rounds `block` up so that no group, of weights or of scales, runs over its end."""
    m = pattern.m if isinstance(pattern, NM) else 1
    group = 1 if format is None or format.group is None else format.group
    unit = math.lcm(m, group)
    return -(-block // unit) * unit
