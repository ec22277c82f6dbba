import dataclasses

import numpy as np
import pytest

from gossamer.compression.interplay import (
    DENSE,
    Cell,
    check_thresholds,
    compact_bits,
    compare_orders,
    pair_sizes,
    summarize,
)
from tests.compression.interplay.results import GRID, QS, QUANTIZED, SPARSE, SQ, result


def test_the_threshold_is_of_the_cells_own_single_methods():
    checks = {check.result.cell: check for check in check_thresholds(GRID)}
    assert list(checks) == [SQ, QS]
    dense, quantized, sparse = (np.exp(np.mean(each.losses)) for each in GRID[:3])
    check = checks[SQ]
    assert check.threshold == pytest.approx(sparse + quantized - dense)
    assert check.excess == pytest.approx(np.exp(4.4) - check.threshold)
    assert check.above
    assert check.sparsity_nats == pytest.approx((12.4 - 9.3) / 3)
    assert check.quantization_nats == pytest.approx(0.1)


@pytest.mark.parametrize("missing", [DENSE, SPARSE, QUANTIZED])
def test_a_cell_whose_single_methods_are_not_there_yet_is_not_judged(missing):
    assert check_thresholds([each for each in GRID if each.cell != missing]) == []


def test_orders_are_compared_window_for_window():
    (comparison,) = compare_orders(GRID)
    assert (comparison.sq.cell, comparison.qs.cell) == (SQ, QS)
    assert comparison.difference_nats == pytest.approx(-0.15)
    assert comparison.standard_error == pytest.approx(0.05 / 3**0.5)
    assert comparison.better
    assert not comparison.worse


@pytest.mark.parametrize(
    ("qs", "verdict"),
    [
        ((4.2, 4.6, 4.4), (False, False)),
        ((4.1, 4.7, 4.35), (False, False)),
        ((4.0, 4.4, 4.19), (False, True)),
    ],
)
def test_a_difference_within_the_noise_is_neither_better_nor_worse(qs, verdict):
    (comparison,) = compare_orders([*GRID[:4], result(QS, *qs)])
    assert (comparison.better, comparison.worse) == verdict


def test_sparse_cells_are_paired_with_the_largest_without_zeros_that_is_not_larger():
    sizes = {"MXFP4": 4.25, "NVFP4": 4.5, "HBFP6": 6.125}
    rivals = [
        result(Cell(format=name, method="rtn"), 3.5, 3.6, 3.7, bits=bits)
        for name, bits in sizes.items()
    ]
    pairs = {pair.sparse.cell: pair for pair in pair_sizes([*GRID, *rivals])}
    assert list(pairs) == [SPARSE, SQ]
    assert pairs[SQ].quantized.cell.format == "NVFP4"
    assert pairs[SPARSE].quantized.cell == QUANTIZED
    assert pairs[SQ].quantized_is_better
    worse = [dataclasses.replace(rival, losses=(5.0, 5.0, 5.0)) for rival in rivals]
    assert not {p.sparse.cell: p for p in pair_sizes([*GRID, *worse])}[SQ].quantized_is_better


def test_patterns_without_groups_are_counted_with_a_bitmap():
    half = Cell(pattern="50%", method="magnitude")
    assert compact_bits(result(half, 3.0, bits=32.0)) == 17
    assert compact_bits(result(dataclasses.replace(half, format="INT4"), 3.0, bits=4.5)) == 3.5
    assert compact_bits(GRID[3]) == GRID[3].bits_per_weight


def test_cells_with_rounded_inputs_are_paired_among_themselves():
    both = dataclasses.replace(SQ, activations=True)
    pairs = pair_sizes([*GRID, result(both, 4.0, 4.0, 4.0, bits=9.0)])
    assert both not in {pair.sparse.cell for pair in pairs}


def test_the_summary_counts():
    sentences = summarize(GRID)
    name = "magnitude, weights only"
    assert sentences == [
        f"{name}: S→Q is better than Q→S beyond the noise in 1 of 1 pairs, worse in 0, and not "
        "told apart in 0.",
        f"{name}: 2 of 2 cells (100%) lie above the orthogonality threshold, 2 of them beyond the "
        "noise.",
        f"{name}: alone, sparsity costs more nats than quantization does in 2 of 2 combinations; "
        "its median share is 91%.",
        f"{name}: with no more bits, quantization alone predicts better than sparsity in 1 of 1 "
        "cells.",
    ]


def test_the_summary_names_where_rounding_first_wins():
    better = result(QS, 4.0, 4.4, 4.19)
    assert "worse in 1 (2:4, INT8, magnitude, S→Q)" in summarize([*GRID[:4], better])[0]


def test_over_several_pairs_the_mean_has_the_spread_between_them():
    others = [
        result(dataclasses.replace(cell, format="INT4"), *losses)
        for cell, losses in ((SQ, (4.2, 4.6, 4.4)), (QS, (4.3, 4.75, 4.6)))
    ]
    sentence = summarize([*GRID, *others])[0]
    assert sentence.endswith("; on average S→Q has -0.1500 ± 0.0000 nats more.")
    others[1] = dataclasses.replace(others[1], losses=(4.2, 4.6, 4.4))
    assert "on average S→Q has -0.0750 ± 0.0750 nats more" in summarize([*GRID, *others])[0]
