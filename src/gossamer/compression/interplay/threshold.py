r"""The orthogonality threshold: what a combination would cost if costs only added up.

For a metric M that is measured on the dense model, on the sparse one, on the quantized one and on
the one that is both:

.. math:: T = M_\text{sparse} + M_\text{quantized} - M_\text{dense}

A combination that is worse than T is evidence that sparsity and quantization are not orthogonal.
It needs the two single methods only, so that it predicts the combination before there is one.

Source: Harma et al. 2024, arXiv 2405.20935, eq. 12, reconstructed from the paper's reviews. It is
taken of perplexities, not of their logarithms.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

Losses = Float64[np.ndarray, " windows"]
"""Mean negative log-likelihood of each window, in nats a prediction."""


def orthogonality_threshold(dense: float, sparse: float, quantized: float) -> float:
    """The metric that a combination has when nothing is lost beyond the sum.

    Example:
        >>> orthogonality_threshold(10.0, sparse=12.0, quantized=11.0)
        13.0
    """
    return sparse + quantized - dense


def excess(measured: float, threshold: float, *, higher_is_better: bool = False) -> float:
    """How much worse than the threshold a combination is; below 0 it is better.

    Args:
        measured: the metric of the combination.
        threshold: what `orthogonality_threshold` gives for it.
        higher_is_better: True for accuracies, False for perplexities and losses.

    Example:
        >>> round(excess(13.4, 13.0), 6), round(excess(0.71, 0.70, higher_is_better=True), 6)
        (0.4, -0.01)
    """
    return threshold - measured if higher_is_better else measured - threshold


def perplexity_of(losses: Losses) -> float:
    """exp of the mean loss over windows of equal length."""
    return float(np.exp(np.mean(losses)))


def excess_of_perplexity(
    measured: Losses, *, dense: Losses, sparse: Losses, quantized: Losses
) -> tuple[float, float]:
    """The excess of a combination's perplexity, and its standard error over windows.

    The error is the jackknife's: all four perplexities are taken anew without each window, so that
    what the four have in common, a window that is hard for any model, does not count as noise.

    Returns:
        The excess and its standard error, in units of perplexity.

    Raises:
        ValueError: there is one window only.
    """

    def of(*losses: Losses) -> float:
        combined, *singles = map(perplexity_of, losses)
        return excess(combined, orthogonality_threshold(*singles))

    return jackknife(of, (measured, dense, sparse, quantized))


def jackknife(statistic: Callable[..., float], samples: Sequence[Losses]) -> tuple[float, float]:
    """A statistic of paired samples, and its standard error from leaving out each in turn.

    Example:
        >>> jackknife(lambda x: float(x.mean()), [np.array([1.0, 2.0, 3.0])])
        (2.0, 0.5773502691896257)

    Raises:
        ValueError: there is one sample only, which has no spread.

    Source: Efron and Stein 1981, The Jackknife Estimate of Variance.
    """
    count = _count(samples[0])
    value = statistic(*samples)
    left_out = [statistic(*(np.delete(sample, i) for sample in samples)) for i in range(count)]
    return value, float(np.sqrt((count - 1) * np.var(left_out)))


def paired_difference(ours: Losses, theirs: Losses) -> tuple[float, float]:
    """The mean of `ours - theirs` over windows and its standard error, in nats a prediction.

    Example:
        >>> paired_difference(np.array([2.0, 3.0]), np.array([1.0, 1.0]))
        (1.5, 0.5)

    Raises:
        ValueError: there is one window only.
    """
    difference = ours - theirs
    count = _count(difference)
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(count))


def _count(sample: Losses) -> int:
    if len(sample) < 2:
        raise ValueError(f"A standard error needs at least 2 windows, got {len(sample)}.")
    return len(sample)
