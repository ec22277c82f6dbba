import json

import numpy as np
import pytest

from gossamer.compression.interplay import DENSE, FORMATS, GRID_FORMATS, GRID_PATTERNS, Cell, grid
from gossamer.compression.interplay.cells import Result
from tests.compression.interplay.results import GRID, QUANTIZED, SPARSE, SQ, result


def test_the_whole_grid_has_every_combination_that_there_is():
    cells = grid(GRID_FORMATS, GRID_PATTERNS)
    combined = [cell for cell in cells if cell.combined]
    assert len(set(cells)) == len(cells)
    by_weights = [cell for cell in combined if not cell.activations]
    assert sum(cell.method in ("magnitude", "wanda") for cell in by_weights) == 8 * 2 * 2 * 2
    assert sum(cell.method == "sparsegpt" for cell in by_weights) == 8 * 2
    assert {cell.order for cell in by_weights if cell.method == "sparsegpt"} == {"sq"}
    assert len(combined) - len(by_weights) == 8 * 2 * 2
    assert {cell.method for cell in combined if cell.activations} == {"magnitude"}
    assert set(GRID_FORMATS) <= set(FORMATS)


def test_every_single_cell_comes_before_those_that_are_held_against_it():
    cells = grid(GRID_FORMATS, GRID_PATTERNS)
    place = {cell: index for index, cell in enumerate(cells)}
    for cell in cells:
        if cell.combined:
            assert all(place[single] < place[cell] for single in (DENSE, *cell.singles()))


def test_the_most_telling_cells_come_first():
    stages = [(c.activations, c.method) for c in grid(["INT8"], ["2:4"]) if c.combined]
    assert list(dict.fromkeys(stages)) == [
        *((False, "magnitude"), (False, "wanda"), (False, "sparsegpt"), (True, "magnitude"))
    ]


def test_single_cells_round_and_prune_as_the_combined_one_does():
    assert Cell(pattern="2:4", method="magnitude") == SPARSE
    assert Cell(format="INT8", method="rtn") == QUANTIZED
    solved = Cell(format="INT4", pattern="2:4", method="sparsegpt", order="sq", activations=True)
    assert solved.singles() == (
        Cell(pattern="2:4", method="sparsegpt"),
        Cell(format="INT4", method="sparsegpt", activations=True),
    )


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (DENSE, "dense"),
        (QUANTIZED, "INT8"),
        (SPARSE, "2:4, magnitude"),
        (SQ, "2:4, INT8, magnitude, S→Q"),
        (Cell(format="INT4", method="rtn", activations=True), "INT4, activations too"),
    ],
)
def test_labels_say_what_was_done(cell, label):
    assert cell.label == label


@pytest.mark.parametrize(
    "wanted",
    [
        {"methods": ["sparsegpt"], "orders": ["qs"]},
        {"methods": ["wanda"], "numerics": ["weights-and-activations"]},
    ],
)
def test_a_grid_that_combines_nothing_is_refused(wanted):
    with pytest.raises(ValueError, match=r"No cell combines.*order sq only"):
        grid(["INT8"], ["2:4"], **wanted)


@pytest.mark.parametrize("each", GRID, ids=lambda each: each.cell.label)
def test_results_survive_json(each):
    assert Result.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_perplexity_is_over_all_windows_and_may_be_infinite():
    assert result(DENSE, 3.0, 4.0).perplexity == pytest.approx(np.exp(3.5))
    assert result(DENSE, 800.0, 900.0).perplexity == np.inf
