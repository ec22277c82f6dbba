import pytest

from gossamer.compression.interplay import Budget, recommend
from tests.compression.interplay.results import GRID, QS, QUANTIZED, SPARSE, SQ


@pytest.mark.parametrize(
    ("budget", "best", "runner_up"),
    [
        (Budget(1000, "MB"), GRID[0].cell, QUANTIZED),
        (Budget(60, "MB"), QUANTIZED, SPARSE),
        (Budget(39.9, "MB"), SQ, QS),
        (Budget(8, "bits"), QUANTIZED, SQ),
        (Budget(7.9, "bits"), SQ, QS),
    ],
    ids=str,
)
def test_the_least_perplexity_within_the_budget_wins(budget, best, runner_up):
    advice = recommend(GRID, budget)
    assert advice.best is not None
    assert advice.runner_up is not None
    assert (advice.best.cell, advice.runner_up.cell) == (best, runner_up)
    assert advice.words.startswith(f"Within {budget}, take {best.label} (perplexity")
    assert f"The runner-up is {runner_up.label}" in advice.words


def test_it_says_whether_the_runner_up_is_told_apart():
    words = recommend(GRID, Budget(7, "bits")).words
    assert "0.1500 nats a prediction more, standard error 0.0289, beyond the noise" in words
    alike = [GRID[3], GRID[4]]
    alike[1] = type(alike[1])(**vars(alike[1]) | {"losses": (4.1, 4.8, 4.36)})
    assert "which the noise may explain" in recommend(alike, Budget(7, "bits")).words


def test_a_single_cell_that_fits_has_no_rival():
    advice = recommend(GRID[3:4], Budget(5, "bits"))
    assert advice.runner_up is None
    assert advice.words.endswith("Nothing else that was measured fits.")


def test_nothing_that_fits_names_the_smallest():
    advice = recommend(GRID, Budget(4, "bits"))
    assert advice.best is None
    assert "Nothing measured fits within 4 bits a weight; the smallest is 2:4, INT8" in advice.words


@pytest.mark.parametrize("most", [0, -1, float("nan")])
def test_a_budget_is_positive(most):
    with pytest.raises(ValueError, match="needs to be positive"):
        Budget(most, "MB")


def test_nothing_measured_is_no_ground_for_advice():
    with pytest.raises(ValueError, match="Nothing was measured"):
        recommend([], Budget(1, "MB"))
