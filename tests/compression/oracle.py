"""SparseGPT, GPTQ and OBR in float64 NumPy, a column or an output at a time, from the equations.

Nothing of the product is used. Weights are `[out, in]` as in the papers; the Hessian is inverted
outright; every column updates all that are to come at once. So only the results can agree.

Source: Frantar and Alistarh 2023, arXiv 2301.00774; Frantar et al. 2022, arXiv 2210.17323; OBR,
arXiv 2509.11177; the rules on thresholds, grids and order from their released code.
"""

import dataclasses
from collections.abc import Callable

import ml_dtypes
import numpy as np

FitGrid = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Columns [out, n] -> scale and zero point of each output."""


@dataclasses.dataclass
class Grid:
    """Codes low..high, worth (code - zero) x scale; fitted per `group` columns or per output."""

    low: int
    high: int
    fit: FitGrid
    group: int | None = None
    of_column: list[tuple[np.ndarray, np.ndarray]] | None = None  # given beforehand


@dataclasses.dataclass
class Result:
    """`scores` are those by which the mask of each column was decided, when it was decided."""

    weights: np.ndarray
    keep: np.ndarray
    codes: np.ndarray
    scores: np.ndarray


def symmetric(bits: int, group: int | None = None, *, bfloat16: bool = False) -> Grid:
    """Absmax over the highest code."""
    high = 2 ** (bits - 1) - 1

    def fit(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.abs(columns).max(axis=1) / high
        scale[scale == 0] = 1
        if bfloat16:
            scale = scale.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        return scale, np.zeros_like(scale)

    return Grid(-high, high, fit, group)


def asymmetric(bits: int, group: int | None = None) -> Grid:
    """Minimum to maximum, both widened to 0, with signed codes."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def fit(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least = np.minimum(columns.min(axis=1), 0)
        most = np.maximum(columns.max(axis=1), 0)
        scale = np.where(least == most, 1, (most - least) / (high - low))
        return scale, np.round(-least / scale) + low

    return Grid(low, high, fit, group)


def fixed(bits: int, scale: np.ndarray, zero: list[int]) -> Grid:
    """A grid given beforehand, with unsigned codes."""
    return Grid(0, 2**bits - 1, lambda _: (scale, np.array(zero)))


def solve(
    weights: np.ndarray,
    hessian: np.ndarray,
    *,
    keep_of: tuple[int, int] | None = None,
    sparsity: float | None = None,
    grid: Grid | None = None,
    keep: np.ndarray | None = None,
    act_order: bool = False,
    damping: float = 0.01,
    block: int = 128,
) -> Result:
    """Prunes (N:M by `keep_of`, the fraction `sparsity`, or as `keep` says), rounds, compensates.

    `act_order` takes columns by descending diagonal, with grids of groups fitted beforehand.
    """
    if act_order:
        return _solve_in_order(weights, hessian, grid, keep, damping)
    w = weights.astype(np.float64)
    h = hessian.astype(np.float64)
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    if grid is not None:
        scale, zero = grid.fit(w)
    w[:, dead] = 0
    h += damping * np.diag(h).mean() * np.eye(len(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    codes, scores = np.zeros(w.shape), np.zeros(w.shape)
    keep = np.ones(w.shape, bool) if keep is None else keep.copy()
    for j in range(w.shape[1]):
        if sparsity is not None and j % block == 0:
            now = slice(j, j + block)
            scores[:, now] = w[:, now] ** 2 / np.diag(u)[now] ** 2
            ranked = np.sort(scores[:, now], axis=None)
            keep[:, now] = scores[:, now] > ranked[int(ranked.size * sparsity)]
        if keep_of is not None and j % keep_of[1] == 0:
            now = slice(j, j + keep_of[1])
            scores[:, now] = w[:, now] ** 2 / np.diag(u)[now] ** 2
            order = np.argsort(-scores[:, now], axis=1, kind="stable")
            np.put_along_axis(keep[:, now], order[:, keep_of[0] :], False, axis=1)
        if grid is not None and grid.of_column is not None:
            scale, zero = grid.of_column[j]
        elif grid is not None and grid.group is not None and j % grid.group == 0:
            scale, zero = grid.fit(w[:, j : j + grid.group])
        q = np.where(keep[:, j], w[:, j], 0)
        if grid is not None:
            codes[:, j] = np.clip(np.round(q / scale) + zero, grid.low, grid.high)
            q = (codes[:, j] - zero) * scale
        error = (w[:, j] - q) / u[j, j]
        w[:, j + 1 :] -= np.outer(error, u[j, j + 1 :])
        w[:, j] = q
    return Result(w, keep, codes, scores)


def output_error(weights: np.ndarray, compressed: np.ndarray, hessian: np.ndarray) -> float:
    """Trace of D H D^T for the change D: the squared output error where H is X^T X."""
    change = compressed.astype(np.float64) - weights
    return float(np.sum((change @ hessian) * change))


def _solve_in_order(
    weights: np.ndarray,
    hessian: np.ndarray,
    grid: Grid | None,
    keep: np.ndarray | None,
    damping: float,
) -> Result:
    order = sorted(range(len(hessian)), key=lambda j: -hessian[j, j])  # stable
    if grid is not None and grid.group is not None:
        w = weights.astype(np.float64)
        starts = [j // grid.group * grid.group for j in order]
        fitted = [grid.fit(w[:, start : start + grid.group]) for start in starts]
        grid = dataclasses.replace(grid, of_column=fitted)
    solved = solve(
        weights[:, order],
        hessian[np.ix_(order, order)],
        grid=grid,
        keep=None if keep is None else keep[:, order],
        damping=damping,
    )
    back = np.argsort(order)
    parts = (solved.weights, solved.keep, solved.codes, solved.scores)
    return Result(*(part[:, back] for part in parts))


def restore(
    weights: np.ndarray,
    hessian: np.ndarray,
    keep: np.ndarray,
    grid: Grid | None = None,
    *,
    gptq: bool = False,
    alpha: float = 0.5,
    damping: float = 0.01,
) -> np.ndarray:
    """OBR, an output at a time; the grid is fitted to the dense weights."""
    w, columns = weights.astype(np.float64), weights.shape[1]
    h = hessian.astype(np.float64)
    h += damping * np.diag(h).mean() * np.eye(columns)
    split = int(alpha * columns)
    scale, zero = (None, None) if grid is None else grid.fit(w)

    def rounded(values: np.ndarray, output: int) -> np.ndarray:
        codes = np.clip(np.round(values / scale[output]) + zero[output], grid.low, grid.high)
        return (codes - zero[output]) * scale[output]

    result = np.zeros(w.shape)
    for output, row in enumerate(w):
        kept, lost = np.flatnonzero(keep[output]), np.flatnonzero(~keep[output])
        push = h[np.ix_(kept, lost)] @ row[lost]
        result[output, kept] = row[kept] + np.linalg.inv(h[np.ix_(kept, kept)]) @ push
        if grid is None:
            continue
        first, last = kept[kept < split], kept[kept >= split]
        error = result[output, first] - rounded(result[output, first], output)
        push = h[np.ix_(last, first)] @ error
        result[output, last] += np.linalg.inv(h[np.ix_(last, last)]) @ push
        result[output, first] = rounded(result[output, first], output)
        if not gptq:
            result[output, last] = rounded(result[output, last], output)
    if grid is not None and gptq:
        rest = dataclasses.replace(grid, fit=lambda _: (scale, zero))
        # Damped already: the Hessian's own damping is left out, but for what solve() needs.
        result[:, split:] = solve(
            result[:, split:], h[split:, split:], grid=rest, keep=keep[:, split:], damping=1e-15
        ).weights
    return result
