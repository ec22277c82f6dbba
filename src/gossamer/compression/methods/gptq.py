r"""GPTQ: rounds a kernel input by input, and makes up for each error with the inputs to come.

The sweep is that of :mod:`gossamer.compression.methods.sparsegpt` without a choice of weights. With
`act_order` the inputs with the largest Hessian diagonal come first, while most inputs are still
free to make up for them.

Source: Frantar et al. 2022, arXiv 2210.17323, algorithm 1; act-order and static groups from the
released code, whose kernels are `[out, in]`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gossamer.compression.hessian import raised_inverse_factor
from gossamer.compression.methods._sweep import Grid, in_tensor_scale, sweep
from gossamer.compression.methods.method import (
    Method,
    Solved,
    Task,
    needs_format,
    prunes_not,
)
from gossamer.compression.methods.prune import task_mask
from gossamer.compression.methods.sparsegpt import check_damping, check_solve, whole_groups
from gossamer.quantization import Codes, Format
from gossamer.recipe import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTQ(Method):
    """Rounds input by input, and makes up for each error with the inputs still to come.

    Attributes:
        act_order: inputs with the largest mean square come first; see `gptq`. The released code
            leaves it out by default, and then can lose to rounding to nearest where the
            calibration text is unlike the text that counts.
        damping: share of the Hessian's mean diagonal that is added to its diagonal, > 0.
    """

    name: ClassVar[str] = "gptq"
    act_order: bool = True
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.name, self.damping)

    def why_not(self, rule: Rule) -> str | None:
        """It does not prune, and needs a format."""
        return prunes_not(self.name, rule) or needs_format(self.name, rule)

    def compress(self, task: Task) -> Solved:
        """Solves."""
        format = task.rule.weights
        assert format is not None
        return gptq(
            task.kernel,
            task.hessian,
            format=format,
            act_order=self.act_order,
            damping=self.damping,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandaGPTQ(Method):
    """Wanda's mask, then GPTQ among the weights that it keeps.

    One after the other, as published pipelines do it: GPTQ makes up for what rounding loses of the
    pruned kernel. What pruning loses stays lost, unlike in `sparsegpt` and `obr`.

    Attributes:
        act_order: as in `GPTQ`.
        damping: as in `GPTQ`.
    """

    name: ClassVar[str] = "wanda-gptq"
    act_order: bool = True
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.name, self.damping)

    def why_not(self, rule: Rule) -> str | None:
        """It needs a format."""
        return needs_format(self.name, rule)

    def compress(self, task: Task) -> Solved:
        """Prunes, then solves."""
        format, mask = task.rule.weights, task_mask(task)
        assert format is not None
        return gptq(
            task.kernel,
            task.hessian,
            format=format,
            mask=mask,
            act_order=self.act_order,
            damping=self.damping,
        )


def gptq(
    kernel: Float[Array, "in out"],
    gram: Float[Array, "rows cols"],
    *,
    format: Format,
    mask: Bool[Array, "mask_in mask_out"] | None = None,
    act_order: bool = True,
    damping: float = 0.01,
    block: int = 128,
) -> Solved:
    """Rounds a kernel so that its output on the calibration inputs changes least.

    A format without groups has its grid fitted to the kernel beforehand. With groups the grid is
    fitted when the sweep reaches the group, to its compensated weights; with `act_order`, when the
    inputs of a group come at different times, to the kernel beforehand (static groups). Groups are
    of consecutive inputs in either case.

    Args:
        kernel: the weights, finite; computed in float32.
        gram: sum of the outer products of the inputs, or any positive multiple of it.
        format: what is rounded to.
        mask: True where a weight is kept: the others are zero before and after, and only what stays
            is changed to make up for errors. None keeps all.
        act_order: takes inputs by descending diagonal of `gram`, not in their order.
        damping: share of the mean diagonal of `gram` that is added to its diagonal, > 0.
        block: inputs that are brought up to date by one matrix product.

    Returns:
        Values and codes in the order of the kernel. Inputs that never fire get zeros. The damping
        is `damping` or, where the matrix is not positive definite with it, more.

    Raises:
        ValueError: NaN or Inf, shapes or lengths that do not fit, a damping or a block that is not
            positive; a matrix that no damping mends.

    Source: see the module. Without act-order the released code fits the grid of a group to what
    the blocks of 128 before it left; here to what all inputs before it left.
    """
    check_solve("gptq", kernel, gram, format, damping, block)
    if mask is not None and mask.shape != kernel.shape:
        raise ValueError(f"A kernel {kernel.shape} needs a mask of its shape, got {mask.shape}.")
    size = kernel.shape[0]
    pruned = kernel if mask is None else jnp.where(mask, kernel, 0)
    dense, tensor_scale = in_tensor_scale(pruned.astype(jnp.float32), format)
    live = jnp.where(jnp.diag(gram)[:, None] == 0, 0, dense)
    order = jnp.argsort(-jnp.diag(gram), stable=True) if act_order else jnp.arange(size)
    given = _given_grid(dense, live, format, act_order)
    factor, damping = raised_inverse_factor(np.asarray(gram[order][:, order]), damping)
    part = sweep(
        live[order],
        jnp.asarray(factor, jnp.float32),
        _of_rows(given, order // (format.group or size)),
        None if mask is None else mask[order],
        pattern=None,
        format=format,
        block=min(whole_groups(block, None, format), size),
    )
    scales, zeros = given or part.fitted()
    codes = Codes(part.result[jnp.argsort(order)], scales, zeros, tensor_scale)
    return Solved(codes.decode(), mask, codes, damping)


def _given_grid(
    dense: Float[Array, "in out"], live: Float[Array, "in out"], format: Format, act_order: bool
) -> Grid | None:
    """The grid where it is fitted before the sweep."""
    if not format.group:
        return format.grid(dense[None])
    return format.grid(live.reshape(-1, format.group, live.shape[1])) if act_order else None


def _of_rows(grid: Grid | None, group: Int[Array, " in"]) -> Grid | None:
    """The scale and zero point of each row, by the number of its group; one grid serves all."""
    return grid if grid is None or len(grid[0]) == 1 else jax.tree.map(lambda p: p[group], grid)
