r"""What can be proved about the order of pruning and rounding, and where it cannot.

With A the positions that S->Q keeps, B those that Q->S keeps, and errors as in `errors`:

1. S->Q adds nothing beyond the sum of its parts, in any Lp norm with p >= 1 (Theorem 3.5).
2. Q->S can (Theorem 3.6). In L1 it adds at most what the wrongly kept weights were rounded up by
   (our form of Theorem 3.7), which grows with their number and the rounding step.
3. S->Q loses no more than Q->S, in any Lp norm.
4. Q->S with the mask of the unrounded weights is S->Q, bit for bit.

1, 3 and 4 need conditions, which `why_no_guarantee` checks; 2 needs none.

Source: Harma et al. 2024, arXiv 2405.20935, Theorems 3.5 to 3.7. The statements are the paper's as
its reviews quote them; its proofs and the constant of 3.7 were not at hand, so 2, 3 and 4 are
derived here, and property tests hold the library to them.
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Float64
from jaxtyping import Int as IntArray

from gossamer.quantization import Format, Int
from gossamer.sparsity import NM, Pattern


def swap_bound(
    kernel: Float[Array | np.ndarray, "in out"],
    rounded: Float[Array | np.ndarray, "in out"],
    keep: Bool[Array | np.ndarray, "in out"],
    keep_rounded: Bool[Array | np.ndarray, "in out"],
) -> Float64[np.ndarray, " out"]:
    r"""Bounds the L1 error that Q->S adds to each output's column.

    .. math:: \lVert e_{s \circ q} \rVert_1 - \lVert e_q \rVert_1 - \lVert e_s \rVert_1
        \le \sum_{b \in B \setminus A} \max(0, |q_b| - |x_b|)

    Each weight a that is dropped wrongly makes room for one b that is kept wrongly, with
    :math:`|q_a| \le |q_b|`. It holds for every quantizer and every scale, and for stochastic
    rounding, where columns are pruned one by one: sum the columns where they are pruned together.

    Args:
        kernel: x.
        rounded: q(x).
        keep: A, what the magnitudes of `kernel` keep.
        keep_rounded: B, what those of `rounded` keep.

    Example:
        >>> x, q = np.array([[7], [0.6], [1.4], [0.1]]), np.array([[7.0], [1], [1], [0]])
        >>> keep, other = x > 1, np.array([[True], [True], [False], [False]])
        >>> swap_bound(x, q, keep, other)
        array([0.4])
    """
    swapped = np.asarray(keep_rounded) & ~np.asarray(keep)
    grown = np.abs(np.asarray(rounded, np.float64)) - np.abs(np.asarray(kernel, np.float64))
    return np.where(swapped, np.maximum(grown, 0), 0).sum(axis=0)


def step_bound(
    swaps: IntArray[np.ndarray, "*dims"],
    step: Float64[np.ndarray, "*#dims"],
    *,
    stochastic: bool = False,
) -> Float64[np.ndarray, "*dims"]:
    """`swap_bound` when all that is known is how many weights are swapped and the rounding step.

    Args:
        swaps: wrongly kept weights; at most min(N, M - N) in a group of N:M.
        step: distance of neighbouring values of the grid, the widest where they differ.
        stochastic: rounding to nearest moves a weight by half a step at most, stochastic rounding
            by a whole one.

    Example:
        >>> step_bound(np.array([0, 1, 2]), np.array([0.5]))
        array([0.  , 0.25, 0.5 ])
    """
    return swaps * step if stochastic else swaps * step / 2


def why_no_guarantee(pattern: Pattern, format: Format, *, by_magnitude: bool = True) -> str | None:
    """Says in words why nothing is promised for S->Q on kernels of this kind; None: it is.

    The promise is that pruning leaves every scale as it is and that weights that compete for a
    place share one. It is about the error of the weights in either order, not about what a model
    makes of them.

    Args:
        pattern: which weights are pruned.
        format: a format whose rounding is deterministic.
        by_magnitude: whether the mask keeps the largest weights; False for Wanda and SparseGPT.

    Example:
        >>> why_no_guarantee(NM(2, 4), Int(4, group=32)) is None
        True
        >>> why_no_guarantee(NM(2, 4), Int(4), by_magnitude=False)
        'a mask that is not by magnitude may drop the largest weight of a scale, which changes it'
    """
    if not by_magnitude:
        return (
            "a mask that is not by magnitude may drop the largest weight of a scale, which changes "
            "it"
        )
    if not isinstance(pattern, NM):
        return f"{pattern} lets weights of different scales compete for a place"
    if format.group is not None and format.group % pattern.m:
        return f"groups of {pattern.m} run over the ends of {format.group} weights with one scale"
    low, high = format.ends
    if low != -high:
        return "where a grid's two sides differ, a scale depends on more than the largest magnitude"
    if isinstance(format, Int) and format.clip is not None:
        return "a searched clip depends on all weights, not on the largest alone"
    return None
