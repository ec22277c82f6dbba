"""SparseGPT and GPTQ in float64 NumPy, a column at a time, written from the equations.

Nothing of the product is used. Weights are `[out, in]` as in the papers; the Hessian is inverted
outright; every column updates all that are to come at once. So only the results can agree.

Source: Frantar and Alistarh 2023, arXiv 2301.00774; Frantar et al. 2022, arXiv 2210.17323; the
rules on thresholds and grids from their released code.
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
    damping: float = 0.01,
    block: int = 128,
) -> Result:
    """Prunes (N:M by `keep_of`, or the fraction `sparsity`), rounds, and compensates."""
    w = weights.astype(np.float64)
    h = hessian.astype(np.float64)
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    if grid is not None:
        scale, zero = grid.fit(w)
    w[:, dead] = 0
    h += damping * np.diag(h).mean() * np.eye(len(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    keep, codes, scores = np.ones(w.shape, bool), np.zeros(w.shape), np.zeros(w.shape)
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
        if grid is not None and grid.group is not None and j % grid.group == 0:
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
