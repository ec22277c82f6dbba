"""`gossamer interplay`: what sparsity and quantization cost together, in either order."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import tyro

from gossamer.cli.console import Command, Console, WrongUseError, arguments
from gossamer.cli.texts import evaluation_windows

if TYPE_CHECKING:
    from gossamer.compression.interplay import Budget, Cell, Experiment, Recommendation, Result

FormatName: TypeAlias = (
    Literal["HBFP8", "HBFP6", "HBFP4", "MXFP8-E4M3", "MXFP8-E5M2", "MXFP6-E2M3", "MXFP6-E3M2"]
    | Literal["MXFP4", "MXINT8", "NVFP4", "INT8", "INT4", "INT2"]
)
PatternName: TypeAlias = Literal["50%", "2:4", "75%", "1:4"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interplay(Command):
    """Measure what sparsity and quantization cost together: formats x patterns x orders.

    Every cell of the grid is made one-shot from the dense model and measured on the same windows.
    A report with tables, verdicts and plots lies in the output folder; the cells that are there
    already are not done again.

    Example: gossamer interplay smollm2 --text wiki.test.raw --out grid --budget-mb 200
    """

    interrupted: ClassVar[str] = "Interrupted. The same command goes on where it stopped."

    model: tyro.conf.Positional[str | None] = None
    """A Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word smollm2."""
    gaussian: bool = False
    """Without a model: the relative errors of every format on a normal kernel, in both orders."""
    text: str | None = None
    """Text file, UTF-8, perhaps .gz or .xz, whose perplexity is measured. Without it, a text that
    every Python has."""
    out: Path | None = None
    """Folder for cells, report and plots. The same command resumes a run that was interrupted."""
    formats: tuple[FormatName, ...] = ()
    """A number format; may be repeated. Without it, all that the grid is meant for (with
    --gaussian: all there are)."""
    patterns: tuple[PatternName, ...] = ()
    """A sparsity pattern; may be repeated. Without it, 50% and 2:4."""
    orders: tuple[Literal["sq", "qs"], ...] = ()
    """sq sparsifies, then quantizes; qs quantizes, then sparsifies. Without it, both."""
    methods: tuple[Literal["magnitude", "wanda", "sparsegpt"], ...] = ()
    """How weights are chosen; may be repeated. Without it, all; sparsegpt has the order sq only."""
    quantize: tuple[Literal["weights", "weights-and-activations"], ...] = ()
    """What is rounded; may be repeated. Without it, weights, then with magnitude also both."""
    context: int | None = None
    """Tokens of a window. Without it, 1024 or the model's positions."""
    windows: int = 8
    """How many windows, from the start of the text; the noise is that between them."""
    calibration: str = "builtin"
    """Text file whose activations guide wanda and sparsegpt. Without it, a text that every Python
    has, in a part that is not measured."""
    sequences: int = 64
    """Calibration sequences."""
    sequence_length: int | None = None
    """Tokens of a calibration sequence. Without it, 512 or the model's positions."""
    seed: int = 0
    """Decides which calibration sequences are drawn."""
    budget_mb: float | None = None
    """Recommend the best cell whose whole model takes at most so many megabytes (10^6 bytes)."""
    budget_bits: float | None = None
    """Recommend the best cell whose compressed kernels take at most so many bits a weight."""

    def run(self, console: Console) -> dict[str, Any]:
        """Measures; returns the rows of the table, or the grid with its verdicts."""
        if self.gaussian:
            return self._gaussian(console)
        if self.model is None or self.out is None:
            raise WrongUseError("A grid needs a MODEL and --out; --gaussian needs neither.")
        return self._grid(console, self.model, self.out)

    def _gaussian(self, console: Console) -> dict[str, Any]:
        given = {
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        } - {"gaussian", "formats", "json", "verbose"}
        if given:
            raise WrongUseError(
                f"--gaussian takes --formats only, not {', '.join(sorted(given))}: it has no model."
            )
        from gossamer.compression.interplay import FORMATS, gaussian_table

        formats = self.formats or tuple(FORMATS)
        rows = gaussian_table(formats, console.stage("formats", len(formats)))
        return {"rows": [dataclasses.asdict(row) for row in rows]}

    def _grid(self, console: Console, model: str, out: Path) -> dict[str, Any]:
        self._check()
        from gossamer.compression.interplay import Journal, recommend, run_grid, write_report

        with arguments():
            cells, budget = self._cells(), self._budget()
        experiment = self._experiment(model)
        with arguments():
            journal = Journal(out, experiment.protocol())
        run_grid(experiment, cells, journal, console.stage)
        results = list(journal.results.values())
        advice = None if budget is None else recommend(results, budget)
        files = write_report(out, journal.protocol, results, advice)
        return _plain(journal.protocol, results, advice) | {"files": [str(file) for file in files]}

    def _check(self) -> None:
        if self.windows < 2 or (self.context is not None and self.context < 2):
            raise WrongUseError(
                "--windows needs 2 or more, since the noise is that between windows, and --context "
                "2 or more."
            )
        if min(self.sequences, self.sequence_length or 1) < 1:
            raise WrongUseError("--sequences and --sequence-length need 1 or more.")
        if self.budget_mb is not None and self.budget_bits is not None:
            raise WrongUseError("Give one budget, --budget-mb or --budget-bits.")

    def _cells(self) -> "list[Cell]":
        from gossamer.compression.interplay import (
            GRID_FORMATS,
            GRID_PATTERNS,
            NUMERICS,
            ORDERS,
            PRUNING_METHODS,
            grid,
        )

        return grid(
            self.formats or GRID_FORMATS,
            self.patterns or GRID_PATTERNS,
            orders=self.orders or ORDERS,
            methods=self.methods or PRUNING_METHODS,
            numerics=self.quantize or NUMERICS,
        )

    def _budget(self) -> "Budget | None":
        from gossamer.compression.interplay import Budget

        if self.budget_mb is not None:
            return Budget(self.budget_mb, "MB")
        return None if self.budget_bits is None else Budget(self.budget_bits, "bits")

    def _experiment(self, model: str) -> "Experiment":
        from gossamer.compression import Calibration
        from gossamer.compression.interplay import Experiment
        from gossamer.loading import load
        from gossamer.models import decoder_config

        checkpoint = load(model)
        limit = decoder_config(checkpoint.config).max_positions
        cut = evaluation_windows(
            checkpoint, self.text, self.context or min(1024, limit), self.windows
        )
        calibration = Calibration.from_text(
            self.calibration,
            checkpoint.require_tokenizer(),
            count=self.sequences,
            length=self.sequence_length or min(512, limit),
            seed=self.seed,
        )
        return Experiment(
            checkpoint=checkpoint, text=cut.text, tokens=cut.tokens, calibration=calibration
        )

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The table of errors; or the verdicts of the grid, and where its report is."""
        if self.gaussian:
            for line in _lines(result["rows"]):
                console.out.print(line)
            return
        for sentence in result["verdicts"]:
            console.out.print(sentence)
        if advice := result["recommendation"]:
            console.out.print(advice["words"])
        console.out.print(f"report: {result['files'][0]}")


def _plain(
    protocol: dict[str, Any], results: "list[Result]", advice: "Recommendation | None"
) -> dict[str, Any]:
    """All that was measured and what follows from it, as plain data; cells by their labels."""
    from gossamer.compression.interplay import check_thresholds, compare_orders, summarize

    return {
        "protocol": protocol,
        "cells": [
            result.to_dict() | {"label": result.cell.label, "perplexity": result.perplexity}
            for result in results
        ],
        "thresholds": [
            {
                "cell": check.result.cell.label,
                "perplexity": check.result.perplexity,
                "threshold": check.threshold,
                "excess": check.excess,
                "standard_error": check.standard_error,
            }
            for check in check_thresholds(results)
        ],
        "orders": [
            {
                "sq": each.sq.cell.label,
                "qs": each.qs.cell.label,
                "difference_nats": each.difference_nats,
                "standard_error": each.standard_error,
            }
            for each in compare_orders(results)
        ],
        "verdicts": summarize(results),
        "recommendation": advice
        and {
            "best": advice.best and advice.best.cell.label,
            "runner_up": advice.runner_up and advice.runner_up.cell.label,
            "words": advice.words,
        },
    }


def _lines(rows: list[dict[str, Any]]) -> Iterable[str]:
    """Relative errors to three significant digits, in columns."""
    names = list(rows[0])
    cells = [names, *([_digits(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _digits(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
