"""What the cells of a grid say: which order, how far above the threshold, and what dominates."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gossamer.compression.interplay.catalogue import FORMATS, PATTERNS
from gossamer.compression.interplay.cells import DENSE, Cell, Result
from gossamer.compression.interplay.threshold import (
    excess_of_perplexity,
    orthogonality_threshold,
    paired_difference,
)
from gossamer.sparsity import Unstructured

Finding = TypeVar("Finding")

NOISE = 2.0
"""Standard errors beyond which a difference counts. One in twenty that are pure noise goes further,
to either side, so that a grid of dozens of cells will have one or two."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdCheck:
    """A combined cell against the sum of its single methods.

    Attributes:
        result: the combined cell.
        threshold: the perplexity that it has when nothing is lost beyond the sum.
        excess: its own beyond that.
        standard_error: of the excess, over windows.
        sparsity_nats: what sparsity alone adds to the dense model's mean loss.
        quantization_nats: what quantization alone adds.
    """

    result: Result
    threshold: float
    excess: float
    standard_error: float
    sparsity_nats: float
    quantization_nats: float

    @property
    def above(self) -> bool:
        """Whether the excess is positive beyond the noise."""
        return self.excess > NOISE * self.standard_error


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderComparison:
    """The two orders of one combination, window for window.

    Attributes:
        sq: the cell S->Q.
        qs: the cell Q->S.
        difference_nats: mean loss of S->Q minus that of Q->S, a prediction.
        standard_error: of the difference, over windows.
    """

    sq: Result
    qs: Result
    difference_nats: float
    standard_error: float

    @property
    def worse(self) -> bool:
        """Whether S->Q is worse beyond the noise."""
        return self.difference_nats > NOISE * self.standard_error

    @property
    def better(self) -> bool:
        """Whether S->Q is better beyond the noise."""
        return -self.difference_nats > NOISE * self.standard_error


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizePair:
    """A sparse cell and the cell without zeros that is nearest to it in size and not larger.

    Attributes:
        sparse: the cell with zeros.
        quantized: the cell without.
        sparse_bits: bits a weight of the first; see `compact_bits`.
    """

    sparse: Result
    quantized: Result
    sparse_bits: float

    @property
    def quantized_is_better(self) -> bool:
        """Whether as many bits or fewer, without zeros, predict better."""
        return self.quantized.perplexity < self.sparse.perplexity


def check_thresholds(results: Iterable[Result]) -> list[ThresholdCheck]:
    """Holds every combined cell whose single cells are there against the threshold."""
    results = list(results)
    by_cell = {result.cell: result for result in results}
    checks = []
    for result in results:
        singles = result.cell.singles() if result.cell.combined else ()
        if singles and {DENSE, *singles} <= set(by_cell):
            dense, sparse, quantized = (by_cell[cell] for cell in (DENSE, *singles))
            checks.append(_check(result, dense, sparse, quantized))
    return checks


def _check(result: Result, dense: Result, sparse: Result, quantized: Result) -> ThresholdCheck:
    excess, standard_error = excess_of_perplexity(
        result.window_losses,
        dense=dense.window_losses,
        sparse=sparse.window_losses,
        quantized=quantized.window_losses,
    )
    return ThresholdCheck(
        result=result,
        threshold=orthogonality_threshold(
            dense.perplexity, sparse=sparse.perplexity, quantized=quantized.perplexity
        ),
        excess=excess,
        standard_error=standard_error,
        sparsity_nats=paired_difference(sparse.window_losses, dense.window_losses)[0],
        quantization_nats=paired_difference(quantized.window_losses, dense.window_losses)[0],
    )


def compare_orders(results: Iterable[Result]) -> list[OrderComparison]:
    """Compares S->Q with Q->S wherever both are there."""
    by_cell = {result.cell: result for result in results}
    comparisons = []
    for cell, sq in by_cell.items():
        qs = by_cell.get(dataclasses.replace(cell, order="qs")) if cell.order == "sq" else None
        if qs is not None:
            difference, error = paired_difference(sq.window_losses, qs.window_losses)
            comparisons.append(
                OrderComparison(sq=sq, qs=qs, difference_nats=difference, standard_error=error)
            )
    return comparisons


def pair_sizes(results: Iterable[Result]) -> list[SizePair]:
    """Finds for each sparse cell, S->Q or float, its rival without zeros.

    That is the largest one that takes no more bits, rounded to nearest; inputs of both are
    quantized or of neither. A cell without a rival is left out.
    """
    results = list(results)
    pairs = []
    for sparse in results:
        if sparse.cell.pattern is None or sparse.cell.order == "qs":
            continue
        bits = compact_bits(sparse)
        rivals = [
            result
            for result in results
            if result.cell.pattern is None
            and result.cell.method == "rtn"
            and result.cell.activations == sparse.cell.activations
            and result.bits_per_weight <= bits
        ]
        if rivals:
            nearest = max(rivals, key=lambda rival: rival.bits_per_weight)
            pairs.append(SizePair(sparse=sparse, quantized=nearest, sparse_bits=bits))
    return pairs


def compact_bits(result: Result) -> float:
    """Bits a weight where patterns without groups are kept with a bitmap and not stored dense.

    One bit a weight says whether it is kept, and only those that are have a value. The packed
    layout has no such form: this is what a comparison at equal size owes to these patterns.

    Example:
        >>> sparse = Cell(format="INT8", pattern="50%", method="magnitude", order="sq")
        >>> compact_bits(Result(cell=sparse, losses=(), bits_per_weight=8.25, model_bytes=0,
        ...     weight_error=0.0, depth_relative=(), depth_absolute=(), seconds=0.0))
        5.25
    """
    cell = result.cell
    pattern = PATTERNS[cell.pattern] if cell.pattern else None
    if not isinstance(pattern, Unstructured):
        return result.bits_per_weight
    value = FORMATS[cell.format].bits if cell.format else 32
    return result.bits_per_weight - pattern.sparsity * value + 1


def group_name(cell: Cell) -> str:
    """What verdicts are counted by: the method, and whether inputs are quantized too."""
    return f"{cell.method}, {'weights and activations' if cell.activations else 'weights only'}"


def summarize(results: Sequence[Result]) -> list[str]:
    """The answers in sentences, group by group."""
    checks = _grouped({check.result.cell: check for check in check_thresholds(results)})
    orders = _grouped({each.sq.cell: each for each in compare_orders(results)})
    pairs = _grouped({pair.sparse.cell: pair for pair in pair_sizes(results)})
    sentences = [_order_sentence(name, group) for name, group in orders.items()]
    sentences += [_threshold_sentence(name, group) for name, group in checks.items()]
    sentences += [_dominance_sentence(name, group) for name, group in checks.items()]
    sentences += [_size_sentence(name, group) for name, group in pairs.items()]
    return sentences


def _grouped(findings: Mapping[Cell, Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for cell, finding in findings.items():
        groups.setdefault(group_name(cell), []).append(finding)
    return groups


def _order_sentence(name: str, group: list[OrderComparison]) -> str:
    better, worse = sum(each.better for each in group), sum(each.worse for each in group)
    lost = "; ".join(each.sq.cell.label for each in group if each.worse)
    return (
        f"{name}: S→Q is better than Q→S beyond the noise in {better} of {len(group)} pairs, worse "
        f"in {worse}{lost and f' ({lost})'}, and not told apart in {len(group) - better - worse}"
        f"{_mean_difference(group)}."
    )


def _mean_difference(group: list[OrderComparison]) -> str:
    """The mean over pairs with its spread between them, which holds the luck of each rounding."""
    if len(group) < 2:
        return ""
    differences = np.array([each.difference_nats for each in group])
    mean, error = paired_difference(differences, np.zeros_like(differences))
    return f"; on average S→Q has {mean:+.4f} ± {error:.4f} nats more"


def _threshold_sentence(name: str, group: list[ThresholdCheck]) -> str:
    positive = sum(check.excess > 0 for check in group)
    above = sum(check.above for check in group)
    return (
        f"{name}: {positive} of {len(group)} cells ({positive / len(group):.0%}) lie above the "
        f"orthogonality threshold, {above} of them beyond the noise."
    )


def _dominance_sentence(name: str, group: list[ThresholdCheck]) -> str:
    sparsity = sum(check.sparsity_nats > check.quantization_nats for check in group)
    share = [
        check.sparsity_nats / (check.sparsity_nats + check.quantization_nats)
        for check in group
        if min(check.sparsity_nats, check.quantization_nats) > 0
    ]
    median = f"; its median share is {np.median(share):.0%}" if share else ""
    return (
        f"{name}: alone, sparsity costs more nats than quantization does in {sparsity} of "
        f"{len(group)} combinations{median}."
    )


def _size_sentence(name: str, group: list[SizePair]) -> str:
    better = sum(pair.quantized_is_better for pair in group)
    return (
        f"{name}: with no more bits, quantization alone predicts better than sparsity in {better} "
        f"of {len(group)} cells."
    )
