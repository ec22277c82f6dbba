"""The sweep over a kernel's inputs that `sparsegpt` and `gptq` describe, compiled.

No weight is written before its turn. The rows that are due are brought up to date from all errors
so far, w_j - sum over i < j of U_ij e_i: one matrix product for a block and a small one for each
row in it. These are the sums of the published loop, which updates all rows of the block to come
after each, seven times faster on a CPU (9 against 63 microseconds a row, 1536 outputs).
"""

import functools
import math
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int8, Num
from jaxtyping import Int as IntArray

from gossamer.quantization import Codes, Format
from gossamer.sparsity import NM, Pattern, Unstructured, lowest_of_highest, score_bits

Grid: TypeAlias = tuple[Float[Array, "_ out"], Int8[Array, "_ out"] | None]
"""Scales and zero points: of all rows, of each group of rows, or of each row."""

Tree = TypeVar("Tree")


class Part(NamedTuple):
    """What is settled of some rows: float values or codes, what stays, errors, grids."""

    result: Num[Array, "rows out"]
    keep: Bool[Array, "rows out"]
    errors: Float[Array, "rows out"]
    grid: Grid | None

    def fitted(self) -> Grid:
        """The grids; there are some where there is a format."""
        assert self.grid is not None
        return self.grid


@functools.partial(jax.jit, static_argnames=("pattern", "format", "block"))
def sweep(
    kernel: Float[Array, "in out"],
    factor: Float[Array, "in in"],
    grid: Grid | None,
    keep: Bool[Array, "in out"] | None = None,
    *,
    pattern: Pattern | None,
    format: Format | None,
    block: int,
) -> Part:
    """Settles all inputs, a block at a time.

    Args:
        kernel: rows in the order in which they are settled.
        factor: of the inverse Hessian, in the same order.
        grid: given beforehand, for all rows together or for each row; None fits the grid of each
            group when its turn comes.
        keep: a mask given beforehand; `pattern` is None then.
        pattern: chooses what stays as the sweep goes.
        format: what is rounded to.
        block: rows that are brought up to date at once, a multiple of M and of the group.
    """
    size = kernel.shape[0]
    group = None if format is None or grid is not None else format.group

    def settle(start: IntArray[Array, ""], rows: int, part: Part) -> Part:
        weights = _compensate(kernel, factor, part.errors, start, rows)
        own = lax.dynamic_slice(factor, (start, start), (rows, rows))
        begin = _nothing_settled(weights.shape, _grid_of(grid, start, rows), format)
        begin = begin._replace(keep=_read(part.keep, start, rows))
        settled = _settle_block(weights, own, begin, pattern, format, group)
        written = Part(*_write(part[:3], settled[:3], start), part.grid)
        if group is None:
            return written
        return written._replace(grid=_write(part.grid, settled.grid, start // group))

    whole = size // block
    part = _nothing_settled(kernel.shape, grid, format)
    part = part if keep is None else part._replace(keep=keep)
    part = lax.fori_loop(0, whole, lambda b, part: settle(b * block, block, part), part)
    return settle(jnp.int32(whole * block), size % block, part) if size % block else part


def _nothing_settled(shape: tuple[int, ...], grid: Grid | None, format: Format | None) -> Part:
    if format is not None and grid is None:
        groups = (format.groups(shape[0]), shape[1])
        zeros = None if format.symmetric else jnp.zeros(groups, jnp.int8)
        grid = (jnp.ones(groups, jnp.float32), zeros)
    result = jnp.zeros(shape, jnp.float32 if format is None else format.code_dtype)
    return Part(result, jnp.ones(shape, bool), jnp.zeros(shape, jnp.float32), grid)


def in_tensor_scale(
    kernel: Float[Array, "in out"], format: Format | None
) -> tuple[Float[Array, "in out"], Float[Array, " 1"] | None]:
    """A kernel as a sweep takes it, divided by the tensor's scale where the format has one."""
    scale = None if format is None else format.tensor_scale(kernel)
    return (kernel, None) if scale is None else (kernel * (1 / scale), scale)


def _grid_of(grid: Grid | None, start: IntArray[Array, ""], rows: int) -> Grid | None:
    """The part of a given grid that some rows need."""
    return grid if grid is None or grid[0].shape[0] == 1 else _read(grid, start, rows)


def _read(planes: Tree, start: IntArray[Array, ""], rows: int = 1) -> Tree:
    """Takes some rows of each plane."""
    return jax.tree.map(lambda p: lax.dynamic_slice_in_dim(p, start, rows), planes)


def _write(planes: Tree, new: Tree, start: IntArray[Array, ""]) -> Tree:
    """Replaces some rows of each plane."""

    def put(old: Array, new: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(old, new, start, axis=0)

    return jax.tree.map(put, planes, new)


def _compensate(
    weights: Float[Array, "in out"],
    factor: Float[Array, "in in"],
    errors: Float[Array, "in out"],
    start: IntArray[Array, ""],
    rows: int,
) -> Float[Array, "rows out"]:
    """Brings `rows` rows up to date; errors that are not there yet are zero."""
    columns = lax.dynamic_slice_in_dim(factor, start, rows, axis=1)
    return _read(weights, start, rows) - jnp.matmul(
        columns.T, errors, precision=lax.Precision.HIGHEST
    )


def _settle_block(
    weights: Float[Array, "rows out"],
    factor: Float[Array, "rows rows"],
    part: Part,
    pattern: Pattern | None,
    format: Format | None,
    group: int | None,
) -> Part:
    """Settles rows that no other row compensates any more; grids are fitted if there is `group`."""
    rows = weights.shape[0]
    panel = pattern.m if isinstance(pattern, NM) else 1

    def settle_panel(p: IntArray[Array, ""], part: Part) -> Part:
        if isinstance(pattern, NM):
            part = _choose_kept(weights, factor, part, p * panel, pattern)
        row = functools.partial(_settle_row, weights, factor, format=format)
        return lax.fori_loop(p * panel, (p + 1) * panel, row, part)

    def settle_group(g: IntArray[Array, ""], part: Part) -> Part:
        if format is not None and group is not None:
            part = _fit_grid(weights, factor, part, g, format, group)
        size = group or rows
        return lax.fori_loop(g * size // panel, (g + 1) * size // panel, settle_panel, part)

    if isinstance(pattern, Unstructured):
        part = part._replace(keep=_above_threshold(_scores(weights, factor), pattern))
    return lax.fori_loop(0, rows // (group or rows), settle_group, part)


def _scores(
    weights: Float[Array, "rows out"], factor: Float[Array, "rows rows"]
) -> Float[Array, "rows out"]:
    """What pruning a weight costs, up to compensation to come: the root of w^2 / U_ii^2."""
    return jnp.abs(weights) / jnp.diag(factor)[:, None]


def _above_threshold(
    scores: Float[Array, "rows out"], pattern: Unstructured
) -> Bool[Array, "rows out"]:
    """Marks the scores above the one of rank floor(sparsity x size), counted from 0."""
    rank = math.floor(pattern.sparsity * scores.size)
    bits = score_bits(scores)
    return bits > lowest_of_highest(bits, scores.size - rank)


def _choose_kept(
    weights: Float[Array, "rows out"],
    factor: Float[Array, "rows rows"],
    part: Part,
    start: IntArray[Array, ""],
    pattern: NM,
) -> Part:
    """Chooses what stays of the group of M rows at `start`, from its compensated weights."""
    due = _compensate(weights, factor, part.errors, start, pattern.m)
    own = lax.dynamic_slice(factor, (start, start), (pattern.m, pattern.m))
    keep = pattern.mask(_scores(due, own), 0)
    return part._replace(keep=_write(part.keep, keep, start))


def _fit_grid(
    weights: Float[Array, "rows out"],
    factor: Float[Array, "rows rows"],
    part: Part,
    index: IntArray[Array, ""],
    format: Format,
    group: int,
) -> Part:
    """Fits the grid of a group to its compensated weights.

    Tried: leaving out the weights that the pattern would drop as things stand. The squared output
    error on held-out text, geometric mean over twelve kernels of SmolLM2-135M, is 0.0278 both
    ways for 2:4 int4 and 0.186 against 0.188 for 1:4 int2 (groups of 64): not worth a second mask.
    """
    due = _compensate(weights, factor, part.errors, index * group, group)
    return part._replace(grid=_write(part.grid, format.grid(due[None]), index))


def _settle_row(
    weights: Float[Array, "rows out"],
    factor: Float[Array, "rows rows"],
    index: IntArray[Array, ""],
    part: Part,
    *,
    format: Format | None,
) -> Part:
    """Prunes and rounds one row and notes its error, divided by U_ii, for the rows to come."""
    due = _compensate(weights, factor, part.errors, index, 1)
    value = result = jnp.where(_read(part.keep, index), due, 0)
    if format is not None and part.grid is not None:
        rows_of_a_grid = weights.shape[0] // part.grid[0].shape[0]
        grid = _read(part.grid, index // rows_of_a_grid)
        result = format.round(value, *grid)
        value = Codes(result, *grid).decode()
    error = (due - value) / factor[index, index]
    return part._replace(
        result=_write(part.result, result, index), errors=_write(part.errors, error, index)
    )
