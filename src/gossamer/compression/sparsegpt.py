r"""SparseGPT: one sweep over a kernel's inputs that prunes, quantizes and compensates.

Inputs are taken in order. What an input's weights lose by pruning and rounding is divided by the
inputs still to come, such that the output on the calibration inputs changes least. Without a
pattern this is GPTQ; with both, a weight is pruned first and what stays is rounded.

With U the upper factor of :mod:`gossamer.compression.hessian`, for input i:

.. math:: e_i = (w_i - q_i) / U_{ii}, \qquad w_j \leftarrow w_j - U_{ij} e_i \quad (j > i)

Source: Frantar and Alistarh 2023, arXiv 2301.00774 (SparseGPT), algorithm 1; Frantar et al. 2022,
arXiv 2210.17323 (GPTQ). Equations and rules from the released code; their kernels are `[out, in]`.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gossamer.compression._sweep import sweep
from gossamer.compression.hessian import inverse_factor
from gossamer.quantization import Codes, Format
from gossamer.sparsity import NM, Pattern, Unstructured


class Solved(NamedTuple):
    """A compressed kernel; `codes.decode()` is `values`, bit for bit, where there are codes."""

    values: Float[Array, "in out"]
    mask: Bool[Array, "in out"]
    codes: Codes | None


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

    Raises:
        ValueError: NaN or Inf, shapes or lengths that do not fit, a pattern that the sweep cannot
            choose, a damping or a block that is not positive.
    """
    _check(kernel, gram, pattern, format, damping, block)
    dead = jnp.diag(gram) == 0
    factor = jnp.asarray(inverse_factor(np.asarray(gram), damping), jnp.float32)
    dense = kernel.astype(jnp.float32)
    tensor_scale = None if format is None else format.tensor_scale(dense)
    if tensor_scale is not None:  # a factor of all weights changes nothing in the solve
        dense = dense * (1 / tensor_scale)
    part = sweep(
        jnp.where(dead[:, None], 0, dense),
        factor,
        None if format is None or format.group is not None else format.grid(dense[None]),
        pattern=pattern,
        format=format,
        block=min(_whole_groups(block, pattern, format), kernel.shape[0]),
    )
    if part.grid is None:
        return Solved(part.result, part.keep, None)
    codes = Codes(part.result, *part.grid, tensor_scale=tensor_scale)
    return Solved(codes.decode(), part.keep, codes)


def _check(
    kernel: Float[Array, "in out"],
    gram: Float[Array, "rows cols"],
    pattern: Pattern | None,
    format: Format | None,
    damping: float,
    block: int,
) -> None:
    size = kernel.shape[0]
    if gram.shape != (size, size):
        raise ValueError(
            f"A kernel {kernel.shape} needs a Gram matrix {(size, size)}, got {gram.shape}."
        )
    for name, array in (("kernel", kernel), ("Gram matrix", gram)):
        if not bool(jnp.isfinite(array).all()):
            raise ValueError(f"The {name} {array.shape} holds NaN or Inf.")
    if damping <= 0 or block < 1:
        raise ValueError(f"sparsegpt needs damping > 0 and block >= 1, got {damping} and {block}.")
    if pattern is not None and not isinstance(pattern, NM | Unstructured):
        raise ValueError(
            f"sparsegpt chooses weights one input at a time and cannot choose {pattern}; use "
            "Wanda or magnitude for this pattern, or an N:M or unstructured one here."
        )
    if pattern is not None:
        pattern.check(kernel.shape, 0)
    if format is not None:
        format.groups(size)
        if isinstance(pattern, NM) and format.group is not None and format.group % pattern.m:
            raise ValueError(
                f"sparsegpt needs groups of scales that hold whole groups of {pattern}, got "
                f"group={format.group}; choose a multiple of {pattern.m}, or None."
            )


def _whole_groups(block: int, pattern: Pattern | None, format: Format | None) -> int:
    """Rounds `block` up so that no group, of weights or of scales, runs over its end."""
    m = pattern.m if isinstance(pattern, NM) else 1
    group = 1 if format is None or format.group is None else format.group
    unit = math.lcm(m, group)
    return -(-block // unit) * unit
