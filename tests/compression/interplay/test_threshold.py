import numpy as np
import pytest

from gossamer.compression.interplay import (
    excess,
    excess_of_perplexity,
    jackknife,
    orthogonality_threshold,
    paired_difference,
)

PUBLISHED = {  # the sheet's section 9.10, worked out from SLiM's table: perplexities and the gap
    "OPT-125M, 50 % Wanda": (27.66, 39.3, 35.1, 62.64, 15.9),
    "OPT-6.7B, 50 % Wanda": (10.86, 12.0, 11.1, 12.31, 0.07),
    "Llama-2-7B, 50 % Wanda": (5.47, 6.4, 5.4, 6.80, 0.47),
    "OPT-125M, 2:4 Wanda": (27.66, 81.6, 35.1, 180.0, 91.0),
    "OPT-6.7B, 2:4 Wanda": (10.86, 16.0, 11.1, 17.29, 1.05),
    "Llama-2-7B, 2:4 Wanda": (5.47, 12.0, 5.4, 14.36, 2.43),
    "Llama-2-7B, 50 % SparseGPT": (5.47, 6.5, 6.1, 8.28, 1.15),
}


def test_golden_threshold_and_excess():
    threshold = orthogonality_threshold(10.0, sparse=12.0, quantized=11.0)
    assert threshold == 13
    assert excess(13.4, threshold) == pytest.approx(0.4)


@pytest.mark.parametrize("case", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_tables_exceed_the_threshold(case):
    dense, sparse, quantized, combined, gap = case
    threshold = orthogonality_threshold(dense, sparse=sparse, quantized=quantized)
    # The sheet gives gaps to two decimals, large ones to one or none.
    digits = 0.5 if gap > 50 else 0.05 if gap > 10 else 0.005
    assert excess(combined, threshold) == pytest.approx(gap, abs=1.01 * digits)


def test_the_sign_turns_where_higher_is_better():
    threshold = orthogonality_threshold(0.80, sparse=0.75, quantized=0.78)
    assert threshold == pytest.approx(0.73)
    assert excess(0.70, threshold, higher_is_better=True) == pytest.approx(0.03)
    assert excess(0.74, threshold, higher_is_better=True) == pytest.approx(-0.01)


def losses(seed, mean, windows=6):
    return mean + 0.1 * np.random.default_rng(seed).normal(size=windows)


def test_the_excess_is_that_of_the_perplexities():
    parts = [losses(seed, mean) for seed, mean in enumerate((3.4, 3.0, 3.2, 3.1))]
    measured, dense, sparse, quantized = parts
    got, error = excess_of_perplexity(measured, dense=dense, sparse=sparse, quantized=quantized)
    m, d, s, q = (np.exp(part.mean()) for part in parts)
    assert got == pytest.approx(m - (s + q - d), rel=1e-12)
    assert error > 0


def test_windows_that_are_hard_for_every_model_are_no_noise():
    """Four models whose losses differ by constants have the same difference in every window."""
    hard = losses(0, 0.0, windows=8)
    same = {name: hard + shift for name, shift in (("dense", 3.0), ("sparse", 3.0))}
    _, error = excess_of_perplexity(hard + 3.0, quantized=hard + 3.0, **same)
    assert error == pytest.approx(0, abs=1e-12)
    _, error = paired_difference(hard + 3.5, hard + 3.0)
    assert error == pytest.approx(0, abs=1e-12)


def test_the_jackknife_of_a_mean_is_its_textbook_error():
    sample = losses(1, 2.0, windows=9)
    value, error = jackknife(lambda x: float(x.mean()), [sample])
    assert value == sample.mean()
    assert error == pytest.approx(sample.std(ddof=1) / 3, rel=1e-12)
    difference, paired = paired_difference(sample, np.zeros(9))
    assert (difference, paired) == (pytest.approx(value), pytest.approx(error))


def test_one_window_has_no_spread():
    with pytest.raises(ValueError, match="at least 2 windows, got 1"):
        paired_difference(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="at least 2 windows, got 1"):
        jackknife(lambda x: float(x.mean()), [np.ones(1)])
