"""The report of a compression: what was done, what it cost, and how large the result is."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import resource
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gossamer.compression.kernel import KernelReport
from gossamer.plots import bar_plot, line_plot

FILES = ("report.json", "report.md", "report-errors.png", "report-sizes.png")
"""Written beside the model, after it: a report can be lost or redone without harm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerplexityChange:
    """Perplexity before and after, on the same windows."""

    text: str
    context: int
    windows: int
    predictions: int
    before: float
    after: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """Accuracy and mean cross-entropy (nats an image) before and after, on the same images."""

    source: str
    images: int
    before: float
    after: float
    cross_entropy_before: float
    cross_entropy_after: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class BleuChange:
    """BLEU (0 to 100) and cross-entropy (nats a token of the targets) before and after.

    Both are on the same pairs; the signature tells how sacrebleu counted.
    """

    source: str
    sentences: int
    signature: str
    before: float
    after: float
    cross_entropy_before: float
    cross_entropy_after: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All that a reader needs to judge a compressed model, and to make it again.

    Attributes:
        model: name of the source.
        recipe: the recipe as plain data.
        method: how weights were chosen and rounded.
        settings: of the method.
        calibration: what it was and the checksum of its tokens or images, or None.
        seed: for methods that draw and for the choice of calibration inputs.
        parameters: numbers in the dense model; tied weights count once.
        bytes_float32: 4 bytes for each of them.
        bytes_on_disk: the model's files: weights, scales, embeddings, tokenizer, configuration;
            None for a result that was not saved.
        bits_per_weight: 8 x the bytes of all tensors over `parameters`.
        perplexity: of a language model; None where it was not measured.
        accuracy: of a model that classifies; None where it was not measured.
        bleu: of an encoder-decoder; None where it was not measured.
        kernels: what became of each selected kernel.
        rescaled: parameters without a rule that the method changed to rescale inputs.
        untouched: weights that no rule matched, as they were.
        seconds: wall time of each stage.
        peak_memory_bytes: the most memory the process has held so far.
        versions: of gossamer and what it computes with.
    """

    model: str
    recipe: dict[str, Any]
    method: str
    settings: dict[str, Any]
    calibration: dict[str, Any] | None
    seed: int
    parameters: int
    bytes_float32: int
    bytes_on_disk: int | None
    bits_per_weight: float
    perplexity: PerplexityChange | None
    accuracy: AccuracyChange | None
    bleu: BleuChange | None
    kernels: Sequence[KernelReport]
    rescaled: Sequence[str]
    untouched: Sequence[str]
    seconds: dict[str, float]
    peak_memory_bytes: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data: what `report.json` holds and `compress --json` prints."""
        return dataclasses.asdict(self)


def peak_memory_bytes() -> int:
    """The largest resident size this process has had."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("gossamer", "jax", "jaxlib", "flax", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def write_report(report: Report, folder: pathlib.Path) -> None:
    """Writes `report.json`, `report.md` and the plots into `folder`, each by rename."""
    text = json.dumps(report.to_dict(), indent=1)
    write_file(folder / "report.json", text.encode())
    write_file(folder / "report.md", to_markdown(report).encode())
    for name, draw in (("report-errors.png", _draw_errors), ("report-sizes.png", _draw_sizes)):
        write_file(folder / name, draw(report))


def to_markdown(report: Report) -> str:
    """The report as text: a summary, the costliest kernels, what was left alone."""
    lines = [f"# {report.model}, {report.recipe['name']}, {report.method}", ""]
    lines += [f"- {line}" for line in _summary(report)]
    lines += ["", "## Kernels, worst first", ""]
    lines += ["| kernel | shape | stored | bits/weight | zeros | weight error | output error |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [_row(kernel) for kernel in sorted(report.kernels, key=_badness, reverse=True)]
    if report.rescaled:
        lines += ["", "## Rescaled, so that the kernels behind them are easier to quantize", ""]
        lines += [", ".join(f"`{path}`" for path in report.rescaled)]
    lines += ["", "## Left alone: no rule matches", ""]
    lines += [", ".join(f"`{path}`" for path in report.untouched) or "nothing"]
    lines += ["", "![errors](report-errors.png)", "", "![sizes](report-sizes.png)", ""]
    return "\n".join(lines)


def _summary(report: Report) -> Iterable[str]:
    if report.bytes_on_disk is not None:
        share = report.bytes_on_disk / report.bytes_float32
        yield (
            f"size on disk {report.bytes_on_disk:,} bytes, {share:.1%} of "
            f"{report.bytes_float32:,} in float32"
        )
    yield f"{report.bits_per_weight:.3f} bits a weight over all {report.parameters:,}"
    if change := report.perplexity:
        yield (
            f"perplexity {change.before:.3f} before, {change.after:.3f} after, on {change.text} "
            f"({change.windows} windows of {change.context}, {change.predictions} predictions)"
        )
    if change := report.accuracy:
        yield (
            f"accuracy {change.before:.2%} before, {change.after:.2%} after, on {change.images} "
            f"images of {change.source} (cross-entropy {change.cross_entropy_before:.3f} and "
            f"{change.cross_entropy_after:.3f})"
        )
    if change := report.bleu:
        yield (
            f"BLEU {change.before:.2f} before, {change.after:.2f} after, on {change.sentences} "
            f"sentences of {change.source} ({change.signature}; cross-entropy "
            f"{change.cross_entropy_before:.3f} and {change.cross_entropy_after:.3f} a token)"
        )
    if report.calibration:
        yield f"calibrated on {_calibration(report.calibration)}, seed {report.seed}"
    if report.settings:
        yield ", ".join(f"{name} {value}" for name, value in report.settings.items())
    for kernel in report.kernels:
        if kernel.damping is not None and kernel.damping > report.settings["damping"]:
            yield f"damping {kernel.damping:g} for `{kernel.path}`: less left it indefinite"
    yield "seconds: " + ", ".join(f"{name} {t:.1f}" for name, t in report.seconds.items())
    yield f"peak memory {report.peak_memory_bytes / 2**20:.0f} MiB"
    yield "versions: " + ", ".join(f"{name} {v}" for name, v in report.versions.items())


def _calibration(given: dict[str, Any]) -> str:
    """What a calibration was, in words."""
    if "images" in given:
        return f"{given['count']} images from {given['images']}"
    if "pairs" in given:
        return (
            f"{given['count']} pairs from {given['pairs']}, in {given['rows']} rows of "
            f"{given['row_length']} tokens"
        )
    return (
        f"{given['sequences']} sequences of {given['sequence_length']} tokens from {given['text']}"
    )


def _badness(kernel: KernelReport) -> float:
    return kernel.weight_error if kernel.output_error is None else kernel.output_error


def _row(kernel: KernelReport) -> str:
    output = "" if kernel.output_error is None else f"{kernel.output_error:.4f}"
    return (
        f"| `{kernel.path}` | {kernel.shape[0]} x {kernel.shape[1]} | {kernel.stored} | "
        f"{kernel.bits_per_weight:.3f} | {kernel.sparsity:.1%} | {kernel.weight_error:.4f} | "
        f"{output} |"
    )


def write_file(file: pathlib.Path, data: bytes) -> None:
    """Writes a file by rename, so that the old one is whole until the new one is."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def _draw_errors(report: Report) -> bytes:
    """Relative error of each kernel over the depth of the model, a line a kind."""
    measured = any(kernel.output_error is not None for kernel in report.kernels)
    lines: dict[str, list[tuple[float, float]]] = {}
    for kernel in report.kernels:
        if place := re.fullmatch(r"(?:(\w+)\.)?layers\.(\d+)\.(.+)\.kernel", kernel.path):
            stack, index, kind = place.groups()
            error = kernel.output_error if measured else kernel.weight_error
            point = (float(index), error if error is not None else kernel.weight_error)
            lines.setdefault(kind if stack is None else f"{stack} {kind}", []).append(point)
    return line_plot(
        lines,
        x="block",
        y=f"relative error of the {'output' if measured else 'weights'}",
        title=f"{report.model}, {report.recipe['name']}, {report.method}",
    )


def _draw_sizes(report: Report) -> bytes:
    """Bytes of each kind of kernel, float32 beside compressed."""
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for kernel in report.kernels:
        kind = kernel.path.removesuffix(".kernel").rpartition(".")[2]
        size = kernel.shape[0] * kernel.shape[1]
        before[kind] = before.get(kind, 0) + size * 4 / 2**20
        after[kind] = after.get(kind, 0) + size * kernel.bits_per_weight / 8 / 2**20
    return bar_plot(
        {"float32": before, "compressed": after},
        y="MiB",
        title=f"{report.model}, {report.recipe['name']}: size by kind of weight",
    )
