import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning.embedding_access import (
    lookups_of_shards,
    simulate_unique_rows,
    unique_fraction,
    unique_rows,
    unique_rows_of_shards,
)


def chances(rows: int, skew: float) -> np.ndarray:
    """The probability of each row, one by one."""
    weights = np.arange(1.0, rows + 1) ** -skew
    return weights / weights.sum()


def hits(rows: int, skew: float, lookups: float) -> np.ndarray:
    """The probability of each row to be among the lookups, one by one."""
    with np.errstate(divide="ignore"):
        return -np.expm1(lookups * np.log1p(-chances(rows, skew)))


def test_unique_rows_of_a_small_table_are_those_of_all_sequences():
    # Three rows, four lookups: 81 sequences.
    p = chances(3, 1.0)
    sequences = np.stack(np.meshgrid(*[np.arange(3)] * 4), -1).reshape(-1, 4)
    wanted = sum(p[list(each)].prod() * len(set(each.tolist())) for each in sequences)
    assert unique_rows(3, 1.0, 4.0) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("lookups", [1.0, 5e4, 1e8])
def test_unique_rows_of_a_large_table_are_their_sum(skew, lookups):
    rows = 300_000
    wanted = hits(rows, skew, lookups).sum()
    assert unique_rows(rows, skew, lookups) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("shards", [1, 7, 128, 4096])
@pytest.mark.parametrize("skew", [0.0, 0.8, 1.2])
def test_rows_of_shards_are_their_sums(shards, skew):
    rows, place = 300_001, np.arange(300_001)
    wanted = np.bincount(place % shards, hits(rows, skew, 5e4))
    got = unique_rows_of_shards(rows, skew, 5e4, shards)
    # The tail is level among shards to second order of one turn over those before.
    np.testing.assert_allclose(got, wanted, rtol=2e-4)
    assert got.sum() == pytest.approx(unique_rows(rows, skew, 5e4), rel=1e-9)
    wanted = np.bincount(place % shards, 5e4 * chances(rows, skew))
    np.testing.assert_allclose(lookups_of_shards(rows, skew, 5e4, shards), wanted, rtol=2e-4)


@pytest.mark.parametrize(("rows", "skew", "lookups"), [(1000, 1.1, 4096), (50_000, 0.6, 20_000)])
def test_drawn_lookups_agree_with_the_expectation_within_their_standard_error(rows, skew, lookups):
    mean, error = simulate_unique_rows(rows, skew, lookups, trials=100, seed=2)
    assert abs(mean - unique_rows(rows, skew, float(lookups))) < 4 * error
    assert error < 0.005 * mean
    assert (mean, error) == simulate_unique_rows(rows, skew, lookups, trials=100, seed=2)


@given(
    rows=st.integers(1, 10**9),
    skew=st.floats(0.0, 2.0),
    lookups=st.floats(1.0, 1e7),
)
def test_unique_rows_are_no_more_than_lookups_or_rows_and_skew_makes_them_fewer(
    rows, skew, lookups
):
    found = unique_rows(rows, skew, lookups)
    assert 0 < found <= min(rows, lookups) * (1 + 1e-9)
    assert found <= unique_rows(rows, 0.0, lookups) * (1 + 1e-9)
    assert 0 < unique_fraction(rows, skew, lookups) <= 1


def test_one_row_is_hit_once():
    assert unique_rows(1, 1.0, 100.0) == 1.0
    assert unique_rows(10, 0.0, 1.0) == pytest.approx(1.0)


def test_skew_without_duplicates_loads_the_first_shard():
    loads = lookups_of_shards(10**6, 1.2, 1e5, 64)
    distinct = unique_rows_of_shards(10**6, 1.2, 1e5, 64)
    assert loads[0] / loads.mean() > 10  # the first row alone gets a fifth of all lookups
    assert distinct[0] / distinct.mean() < 1.1
    assert (np.diff(loads) <= 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unique_rows(0, 1.0, 1.0), "rows needs to be 1 or more, got 0"),
        (lambda: unique_rows(1, -1.0, 1.0), "skew needs to be 0 or more, got -1"),
        (lambda: unique_rows(1, 1.0, 0.0), "lookups needs to be positive, got 0"),
        (lambda: unique_rows_of_shards(1, 1.0, 1.0, 0), "shards needs to be 1 or more, got 0"),
        (lambda: simulate_unique_rows(1, 1.0, 1, trials=1), "2 trials or more, got 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
