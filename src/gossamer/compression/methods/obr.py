r"""Optimal brain restoration: what stays makes up for what is pruned, then for what is rounded.

With H the damped Hessian of an output's squared error, R what it keeps and E what it loses:

.. math:: w_R \leftarrow w_R + H_{RR}^{-1} H_{RE} \, e_E

Pruning loses :math:`e_E = w_E`. Rounding then loses :math:`e = w - q` of the first kept inputs, for
which the last kept inputs make up. The paper prints its equation 9 with a minus; the released code
adds, which is what lowers the error.

Source: OBR, arXiv 2509.11177, and its released code. The rotation that the paper puts in front is
none of this module's.
"""

import dataclasses
import functools
from typing import ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gossamer.compression.hessian import damped, raised_inverse_factor
from gossamer.compression.methods._sweep import Grid, in_tensor_scale, sweep
from gossamer.compression.methods.method import Method, Solved, Task
from gossamer.compression.methods.prune import task_mask
from gossamer.compression.methods.sparsegpt import check_damping, check_solve, whole_groups
from gossamer.quantization import Codes, Format
from gossamer.recipe import Rule
from gossamer.sparsity import NM, Unstructured

Rounding: TypeAlias = Literal["rtn", "gptq"]
"""How the inputs are rounded that made up for the others."""

_BYTES_AT_ONCE = 2**27
"""Of the matrices that are solved together; their factors take as much again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OBR(Method):
    """Wanda's mask; what stays makes up for what is pruned, then for what is rounded.

    Attributes:
        alpha: share of the inputs, from the first, for whose rounding the others make up.
        rounding: of the other inputs.
        damping: share of the Hessian's mean diagonal that is added to its diagonal, > 0.
    """

    name: ClassVar[str] = "obr"
    alpha: float = 0.5
    rounding: Rounding = "gptq"
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.name, self.damping)
        if not 0 < self.alpha < 1:
            raise ValueError(f"obr needs 0 < alpha < 1, got {self.alpha}.")

    def why_not(self, rule: Rule) -> str | None:
        """It makes up for pruning, with as many equations for each output."""
        if not isinstance(rule.pattern, NM | Unstructured):
            return (
                f"Method {self.name!r} makes up for weights pruned N:M or unstructured, but the "
                f"rule has the pattern {rule.pattern}; choose gptq for none, wanda for another."
            )
        return None

    def compress(self, task: Task) -> Solved:
        """Prunes and solves."""
        mask = task_mask(task)
        assert mask is not None
        return obr(
            task.kernel,
            task.hessian,
            mask,
            format=task.rule.weights,
            alpha=self.alpha,
            rounding=self.rounding,
            damping=self.damping,
        )


def obr(
    kernel: Float[Array, "in out"],
    gram: Float[Array, "rows cols"],
    mask: Bool[Array, "in out"],
    *,
    format: Format | None,
    alpha: float = 0.5,
    rounding: Rounding = "gptq",
    damping: float = 0.01,
    block: int = 128,
) -> Solved:
    """Changes what a mask keeps so that the output on the calibration inputs changes least.

    Every output has equations of its own, as many as it keeps weights: two Cholesky factors an
    output, of in/2 and in/4 rows for 2:4.

    Args:
        kernel: the dense weights, finite; computed in float32.
        gram: sum of the outer products of the inputs, or any positive multiple of it.
        mask: True where a weight is kept.
        format: what is rounded to; None leaves floats, and only pruning is made up for.
        alpha: the inputs below alpha x in are rounded to nearest first, and those above make up
            for it. Where the format has groups, the nearest multiple of the group.
        rounding: of the inputs above: to nearest, or by GPTQ among what is kept.
        damping: share of the mean diagonal of `gram` that is added to its diagonal, > 0.
        block: of GPTQ.

    Returns:
        Values, the mask and codes. Inputs that never fire get zeros. The damping is `damping` or,
        where the matrix is not positive definite with it, more.

    Raises:
        ValueError: NaN or Inf, shapes or lengths that do not fit, a damping or a block that is not
            positive; a matrix that no damping mends.

    Source: the released code of arXiv 2509.11177, with its grid without groups, fitted to the dense
    kernel. It has no groups; here the grid of one is fitted to what is rounded.
    """
    check_solve("obr", kernel, gram, format, damping, block)
    dense, tensor_scale = in_tensor_scale(kernel.astype(jnp.float32), format)
    live = jnp.where(jnp.diag(gram)[:, None] == 0, 0, dense)
    factor, damping = raised_inverse_factor(np.asarray(gram), damping)
    hessian = jnp.asarray(damped(np.asarray(gram), damping), jnp.float32)
    lost = jnp.where(mask, 0, live)
    kept = jnp.where(mask, live, 0) + restoration(hessian, hessian @ lost, mask)
    if format is None:
        return Solved(kept, mask, None, damping)
    split = _split(kernel.shape[0], alpha, format)
    given = format.grid(dense[None]) if format.groups(kernel.shape[0]) == 1 else None
    first = _nearest(kept[:split], format, given)
    error = jnp.where(mask[:split], kept[:split] - first.decode(), 0)
    last = kept[split:] + restoration(
        hessian[split:, split:], hessian[split:, :split] @ error, mask[split:]
    )
    if rounding == "rtn":
        second = _nearest(last, format, given)
    else:
        # The last rows of the factor are the factor of the last rows.
        part = sweep(
            last,
            jnp.asarray(factor[split:, split:], jnp.float32),
            given,
            mask[split:],
            pattern=None,
            format=format,
            block=min(whole_groups(block, None, format), last.shape[0]),
        )
        second = Codes(part.result, *part.fitted())
    codes = _joined(first, second, given)._replace(tensor_scale=tensor_scale)
    return Solved(codes.decode(), mask, codes, damping)


def _split(size: int, alpha: float, format: Format) -> int:
    unit = format.group or 1
    return min(max(round(alpha * size / unit), 1) * unit, size - unit)


def _nearest(rows: Float[Array, "rows out"], format: Format, grid: Grid | None) -> Codes:
    """Rounds rows to a given grid, or to one of their own."""
    groups = 1 if grid else format.groups(rows.shape[0])
    blocks = rows.reshape(groups, -1, rows.shape[1])
    scales, zeros = grid or format.grid(blocks)
    codes = format.round(blocks, scales[:, None], None if zeros is None else zeros[:, None])
    return Codes(codes.reshape(rows.shape), scales, zeros)


def _joined(first: Codes, second: Codes, grid: Grid | None) -> Codes:
    """The codes of all rows; grids lie one behind the other unless there is one of them."""
    if grid is not None:
        return Codes(jnp.concatenate([first.codes, second.codes]), *grid)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def restoration(
    hessian: Float[Array, "in in"], rhs: Float[Array, "in out"], keep: Bool[Array, "in out"]
) -> Float[Array, "in out"]:
    r"""Solves :math:`H_{RR} \, d_R = b_R` for every output, R being what it keeps; zero elsewhere.

    Args:
        hessian: positive definite.
        rhs: b, of which the rows of R count.
        keep: True on R, an own set of rows for each output.
    """
    counts = np.asarray(keep).sum(axis=0)
    most = int(counts.max(initial=0))
    if most == 0:
        return jnp.zeros(rhs.shape, jnp.float32)
    # The kept rows of each output first, in their order.
    rows = jnp.argsort(~keep, axis=0, stable=True)[:most].T
    valid = jnp.arange(most) < jnp.asarray(counts)[:, None]
    step = max(1, _BYTES_AT_ONCE // (4 * most * most))
    parts = [
        _solve(hessian, rhs.T[at : at + step], rows[at : at + step], valid[at : at + step])
        for at in range(0, len(rows), step)
    ]
    return jnp.concatenate(parts).T


@functools.partial(jax.jit)
def _solve(
    hessian: Float[Array, "in in"],
    rhs: Float[Array, "out in"],
    rows: Array,
    valid: Bool[Array, "out kept"],
) -> Float[Array, "out in"]:
    """One system an output, filled up with rows of the unit matrix to be equally large."""
    both = valid[:, :, None] & valid[:, None, :]
    unit = jnp.eye(rows.shape[1], dtype=hessian.dtype)
    systems = jnp.where(both, hessian[rows[:, :, None], rows[:, None, :]], unit)
    right = jnp.where(valid, jnp.take_along_axis(rhs, rows, axis=1), 0)
    factors = jax.lax.linalg.cholesky(systems)
    half = jax.lax.linalg.triangular_solve(factors, right[:, :, None], left_side=True, lower=True)
    full = jax.lax.linalg.triangular_solve(
        factors, half, left_side=True, lower=True, transpose_a=True
    )
    out = jnp.zeros(rhs.shape, hessian.dtype)
    return out.at[jnp.arange(len(rows))[:, None], rows].add(full[:, :, 0])
