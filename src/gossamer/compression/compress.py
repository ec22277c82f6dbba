"""The front door of one-shot compression: a model in, a smaller model and a report out."""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from gossamer.compression.calibration import BUILTIN, Calibration
from gossamer.compression.job import Job
from gossamer.compression.kernel import KernelReport
from gossamer.compression.methods import Method, MethodName, make_method
from gossamer.compression.one_shot import Sink, run
from gossamer.compression.pytree import compress_pytree
from gossamer.compression.report import (
    PerplexityChange,
    Report,
    peak_memory_bytes,
    versions,
    write_report,
)
from gossamer.compression.sinks import FolderSink, MemorySink
from gossamer.evaluation import check_windows, perplexity
from gossamer.loading import Checkpoint
from gossamer.models import decoder_config
from gossamer.packing import model_bytes
from gossamer.recipe import Recipe, Rule

Model = TypeVar("Model")
Progress = Callable[[str, int], Callable[[], None]]
"""Told a stage and its number of steps; returns what is called after each step."""


def _silent(_stage: str, _steps: int) -> Callable[[], None]:
    return lambda: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The windows on which perplexity is measured before and after.

    Attributes:
        text: name of the text.
        tokens: the windows.
        before: perplexity of the dense model on them where it is known; None measures it.
    """

    text: str
    tokens: Int[np.ndarray, "windows context"]
    before: float | None = None


def compress(
    model: Model,
    recipe: Recipe | str,
    *,
    method: Method | MethodName | None = None,
    calibration: Calibration | str | None = None,
    seed: int = 0,
    reduction_axis: int = 0,
) -> Model:
    """Prunes and quantizes a language model or any pytree of parameters, in one shot.

    Args:
        model: what `gossamer.load` returns; or any pytree of parameters, whose matched 2-D leaves
            are pruned by magnitude and rounded to nearest (see `compress_pytree`).
        recipe: a recipe, a preset's name or a recipe file.
        method: a method with its settings, such as `GPTQ(damping=0.1)`, or the name of one:
            `rtn`, `magnitude`, `random`, `wanda`, `sparsegpt`, `gptq`, `wanda-gptq`, `obr`, `awq`
            or `smoothquant`. None is `sparsegpt` where the recipe has a pattern and `rtn` where
            it has none.
        calibration: a text file, "builtin", or a `Calibration`; None is "builtin" where the
            method needs one. A text is cut into 64 sequences of 512 tokens.
        seed: for the choice of calibration sequences and for methods that draw.
        reduction_axis: of a pytree's kernels: 0 where they are `[in, out]`, 1 where they are
            `[out, in]` (Equinox, PyTorch).

    Returns:
        A model of the same kind: packed weights in memory, or the pytree with compressed values.

    Raises:
        ValueError: the recipe does not suit the model, a weight or an activation is not finite,
            the calibration text is too short.
    """
    recipe = Recipe.load(recipe)
    if isinstance(model, str | pathlib.Path):
        raise ValueError(f"compress takes a model, not where it is: gossamer.load({str(model)!r}).")
    if not isinstance(model, Checkpoint):
        name = method.name if isinstance(method, Method) else method
        if calibration is not None or name not in (None, "rtn", "magnitude"):
            raise ValueError(
                f"A pytree of type {type(model).__name__} is pruned by magnitude and rounded to "
                f"nearest; method {name!r} with a calibration text needs a model that "
                "gossamer.load returned."
            )
        return compress_pytree(model, recipe, reduction_axis=reduction_axis)
    compressed, _ = one_shot(
        model, recipe, method=method, calibration=calibration, seed=seed, out=None
    )
    return compressed


def one_shot(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    method: Method | MethodName | None = None,
    calibration: Calibration | str | None = None,
    sequences: int = 64,
    sequence_length: int = 512,
    seed: int = 0,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
    evaluation: Evaluation | None = None,
    progress: Progress = _silent,
) -> tuple[Checkpoint, Report]:
    """Compresses a language model and reports on it.

    Args:
        checkpoint: the dense model.
        recipe: what is done to which weights.
        method: as in `compress`.
        calibration: as in `compress`.
        sequences: calibration sequences cut from a text.
        sequence_length: their tokens.
        seed: as in `compress`.
        out: folder for the result; None keeps it in memory. An interrupted run resumes at the
            block where it stopped when it is asked for the same again.
        overwrite: replace `out` when it exists; it stays whole until the new one is complete.
        evaluation: windows for the perplexity before and after; None leaves it out.
        progress: see `Progress`.

    Returns:
        The compressed model, and the report, which is in `out` too.

    Raises:
        ValueError: as in `compress`; the windows are not for this model; `out` exists and
            `overwrite` is not set.
    """
    clock = _Clock()
    job = _job(checkpoint, recipe, method, calibration, sequences, sequence_length, seed)
    rules = job.rules()
    if evaluation is not None:
        check_windows(checkpoint, evaluation.tokens)
    sink: Sink = MemorySink(job) if out is None else FolderSink(job, out, overwrite=overwrite)
    steps = len(checkpoint.config.blocks) + 1
    with clock.stage("compress"):
        kernels = run(job, sink, progress(f"{recipe.name}, {job.method.name}", steps))
        compressed = sink.finish()
    change = None
    if evaluation is not None:
        change = _measure(checkpoint, compressed, evaluation, clock, progress)
    report = _report(job, rules, compressed, kernels, change, out, clock.seconds)
    if out is not None:
        write_report(report, out)
    return compressed, report


def _job(
    checkpoint: Checkpoint,
    recipe: Recipe,
    method: Method | MethodName | None,
    calibration: Calibration | str | None,
    sequences: int,
    sequence_length: int,
    seed: int,
) -> Job:
    if method is None:
        method = "sparsegpt" if any(rule.pattern for rule in recipe.rules) else "rtn"
    if not isinstance(method, Method):
        method = make_method(method, {})
    if calibration is None and method.calibrated:
        calibration = BUILTIN
    if isinstance(calibration, str | pathlib.Path):
        tokenizer = checkpoint.require_tokenizer()
        limit = decoder_config(checkpoint.config).max_positions
        if sequence_length > limit:
            raise ValueError(
                f"Calibration sequences of {sequence_length} tokens are longer than the {limit} "
                "positions of this model."
            )
        calibration = Calibration.from_text(
            calibration,
            tokenizer,
            count=sequences,
            length=sequence_length,
            seed=seed,
        )
    return Job(
        checkpoint=checkpoint, recipe=recipe, method=method, calibration=calibration, seed=seed
    )


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _measure(
    dense: Checkpoint,
    compressed: Checkpoint,
    evaluation: Evaluation,
    clock: _Clock,
    progress: Progress,
) -> PerplexityChange:
    steps = len(dense.config.blocks)
    before = evaluation.before
    if before is None:
        with clock.stage("perplexity before"):
            advance = progress("perplexity before", steps)
            before = perplexity(dense, evaluation.tokens, advance).perplexity
    with clock.stage("perplexity after"):
        after = perplexity(compressed, evaluation.tokens, progress("perplexity after", steps))
    return PerplexityChange(
        text=evaluation.text,
        context=after.context,
        windows=after.windows,
        predictions=after.predictions,
        before=before,
        after=after.perplexity,
    )


def _report(
    job: Job,
    rules: Mapping[str, Rule],
    compressed: Checkpoint,
    kernels: list[KernelReport],
    change: PerplexityChange | None,
    out: pathlib.Path | None,
    seconds: dict[str, float],
) -> Report:
    parameters = sum(math.prod(tensor.shape) for tensor in job.checkpoint.tensors.values())
    rescaled = job.rescaled_paths(rules)
    touched = {*rules, *rescaled}
    held = sum(compressed.read(path).nbytes for path in compressed.paths)
    return Report(
        model=str(job.checkpoint.source["name"]),
        recipe=job.recipe.to_dict(),
        method=job.method.name,
        settings=job.method.settings,
        calibration=job.calibration.describe() if job.calibration else None,
        seed=job.seed,
        parameters=parameters,
        bytes_float32=4 * parameters,
        bytes_on_disk=None if out is None else model_bytes(out),
        bits_per_weight=8 * held / parameters,
        perplexity=change,
        kernels=kernels,
        rescaled=rescaled,
        untouched=[path for path in job.checkpoint.paths if path not in touched],
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
    )
