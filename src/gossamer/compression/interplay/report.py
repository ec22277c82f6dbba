"""The report of a grid: tables in Markdown and two plots, written from the finished cells alone."""

import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gossamer.compression.interplay.bounds import why_no_guarantee
from gossamer.compression.interplay.catalogue import FORMATS, PATTERNS
from gossamer.compression.interplay.cells import Cell, Result
from gossamer.compression.interplay.orders import ARROWS
from gossamer.compression.interplay.recommend import Recommendation
from gossamer.compression.interplay.verdicts import (
    NOISE,
    check_thresholds,
    compare_orders,
    group_name,
    pair_sizes,
    summarize,
)
from gossamer.compression.report import write_file
from gossamer.plots import Line, equality_plot, line_panels


def write_report(
    folder: pathlib.Path,
    protocol: dict[str, Any],
    results: Sequence[Result],
    recommendation: Recommendation | None,
) -> list[pathlib.Path]:
    """Writes the report and its plots into a folder; their names begin with the folder's.

    Args:
        folder: exists.
        protocol: as the journal keeps it.
        results: the finished cells.
        recommendation: printed in the report where there is one.

    Returns:
        The files.
    """
    name = folder.resolve().name
    files = {
        f"{name}.md": to_markdown(name, protocol, results, recommendation).encode(),
        f"{name}-depth.png": _draw_depth(protocol, results),
        f"{name}-threshold.png": _draw_threshold(protocol, results),
    }
    for file, content in files.items():
        write_file(folder / file, content)
    return [folder / file for file in files]


def to_markdown(
    name: str,
    protocol: dict[str, Any],
    results: Sequence[Result],
    recommendation: Recommendation | None,
) -> str:
    """The report as text; plots are named after `name`."""
    lines = [f"# {protocol['model']['name']}: sparsity and quantization together", ""]
    lines += [*_protocol_lines(protocol), "", "## What it says", ""]
    lines += [f"- {sentence}" for sentence in summarize(results)]
    if recommendation is not None:
        lines += [f"- {recommendation.words}"]
    sections = (
        ("## One method alone", _single_rows(results)),
        ("## Both, against the orthogonality threshold", _combined_rows(results)),
        ("## The two orders, window for window", _order_rows(results)),
        ("## Against fewer bits without zeros", _size_rows(results)),
    )
    for title, rows in sections:
        lines += ["", title, "", *_table(rows)]
    lines += ["", f"![measured against threshold]({name}-threshold.png)"]
    lines += ["", f"![error against depth]({name}-depth.png)", ""]
    return "\n".join(lines)


def _protocol_lines(protocol: dict[str, Any]) -> Iterator[str]:
    given = protocol["calibration"]
    yield (
        f"First {protocol['windows']} windows of {protocol['context']} tokens of "
        f"{protocol['text']}, which do not overlap. Every cell is made one-shot from the dense "
        f"model; {protocol['kernels']} kernels of its blocks take part, embedding, output and "
        f"norms do not. Wanda and SparseGPT are calibrated on {given['sequences']} sequences of "
        f"{given['sequence_length']} tokens of {given['text']}."
    )
    yield ""
    yield (
        "S→Q prunes, then rounds; Q→S rounds, then prunes. Bits are those of a weight of the "
        "kernels that take part and MB those of the whole model, both as packed: patterns without "
        "groups are stored dense. The weight error is the relative L2 error of these kernels; the "
        "error behind the last block is that of the hidden states. The threshold is sparse + "
        f"quantized - dense. ± is one standard error over windows; beyond the noise is {NOISE:g} "
        "of them."
    )
    if left_out := protocol["left_out"]:
        yield ""
        yield f"{len(left_out)} kernels take part in no cell, since not every format suits them:"
        yield ""
        yield from _left_out_lines(left_out)


def _left_out_lines(left_out: Mapping[str, str]) -> Iterator[str]:
    """A line for kernels that differ in the number of their block only."""
    kinds: dict[tuple[str, str], int] = {}
    for path, why in left_out.items():
        kind = re.sub(r"^layers\.\d+\.", "layers.*.", path), why
        kinds[kind] = kinds.get(kind, 0) + 1
    for (kind, why), count in kinds.items():
        yield f"- `{kind}`, {count} of them: {why}"


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A header and rows; what there is nothing of yet is said so."""
    header, *body = rows
    if not body:
        yield "Nothing yet."
        return
    for row in (header, ["---"] * len(header), *body):
        yield f"| {' | '.join(row)} |"


def _single_rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    yield "cell", "bits", "MB", "weight error", "error behind the last block", "perplexity"
    for result in results:
        if not result.cell.combined:
            yield result.cell.label, *_sizes(result), f"{result.perplexity:.2f}"


def _sizes(result: Result) -> tuple[str, ...]:
    return (
        f"{result.bits_per_weight:.2f}",
        f"{result.model_bytes / 1e6:.1f}",
        f"{result.weight_error:.5f}",
        f"{result.depth_relative[-1]:.4f}",
    )


def _combined_rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    yield (
        *("cell", "bits", "MB", "weight error", "error behind the last block"),
        *("perplexity", "threshold", "excess", "above", "S→Q is never worse on weights"),
    )
    for check in check_thresholds(results):
        beyond = "beyond the noise" if check.above else "yes" if check.excess > 0 else "no"
        yield (
            check.result.cell.label,
            *_sizes(check.result),
            f"{check.result.perplexity:.2f}",
            f"{check.threshold:.2f}",
            f"{check.excess:+.2f} ± {check.standard_error:.2f}",
            beyond,
            "promised" if _promised(check.result.cell) else "not promised",
        )


def _promised(cell: Cell) -> bool:
    assert cell.pattern is not None
    assert cell.format is not None
    by_magnitude = cell.method == "magnitude"
    pattern, format = PATTERNS[cell.pattern], FORMATS[cell.format]
    return why_no_guarantee(pattern, format, by_magnitude=by_magnitude) is None


def _order_rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    yield "cell", "S→Q", "Q→S", "nats S→Q has more", "S→Q is"
    for each in compare_orders(results):
        verdict = "better" if each.better else "worse" if each.worse else "not told apart"
        yield (
            each.sq.cell.label.replace(f", {ARROWS['sq']}", ""),
            f"{each.sq.perplexity:.2f}",
            f"{each.qs.perplexity:.2f}",
            f"{each.difference_nats:+.5f} ± {each.standard_error:.5f}",
            verdict,
        )


def _size_rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    yield (
        *("sparse cell", "bits, with a bitmap where there are no groups", "perplexity"),
        *("cell without zeros", "bits", "perplexity", "better"),
    )
    for pair in pair_sizes(results):
        yield (
            *(pair.sparse.cell.label, f"{pair.sparse_bits:.2f}", f"{pair.sparse.perplexity:.2f}"),
            *(pair.quantized.cell.label, f"{pair.quantized.bits_per_weight:.2f}"),
            f"{pair.quantized.perplexity:.2f}",
            "without zeros" if pair.quantized_is_better else "sparse",
        )


def _draw_depth(protocol: dict[str, Any], results: Sequence[Result]) -> bytes:
    """Relative error behind each block for both orders, by magnitude, a panel a pattern."""
    drawn = [
        result
        for result in results
        if result.cell.order and result.cell.method == "magnitude" and not result.cell.activations
    ]
    formats = list(dict.fromkeys(result.cell.format for result in drawn))
    panels: dict[str, list[Line]] = {}
    for result in drawn:
        cell = result.cell
        assert cell.order is not None
        line = Line(
            label=f"{cell.format}, {ARROWS[cell.order]}",
            points=[(float(i), error) for i, error in enumerate(result.depth_relative[1:])],
            color=formats.index(cell.format),
            dashed=cell.order == "qs",
        )
        panels.setdefault(f"{cell.pattern}, magnitude", []).append(line)
    return line_panels(
        panels,
        x="block",
        y="relative error of the hidden states behind it",
        title=f"{protocol['model']['name']}: weights only",
    )


def _draw_threshold(protocol: dict[str, Any], results: Sequence[Result]) -> bytes:
    series: dict[str, list[tuple[float, float]]] = {}
    for check in check_thresholds(results):
        assert check.result.cell.order is not None
        name = f"{group_name(check.result.cell)}, {ARROWS[check.result.cell.order]}"
        series.setdefault(name, []).append((check.threshold, check.result.perplexity))
    return equality_plot(
        series,
        x="orthogonality threshold, perplexity",
        y="measured perplexity",
        title=f"{protocol['model']['name']}: above the line, costs do more than add up",
    )
