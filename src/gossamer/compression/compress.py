"""The front door of one-shot compression: a model in, a smaller model and a report out."""

import math
import pathlib
from collections.abc import Mapping
from typing import TypeVar

from gossamer.compression.calibration import BUILTIN, Calibration
from gossamer.compression.image_calibration import ImageCalibration
from gossamer.compression.job import CalibrationData, Job
from gossamer.compression.kernel import KernelReport
from gossamer.compression.measure import (
    Change,
    Clock,
    EvaluationData,
    Progress,
    check_evaluation,
    measure,
    silent,
)
from gossamer.compression.methods import Method, MethodName, make_method
from gossamer.compression.one_shot import Sink, run
from gossamer.compression.pair_calibration import PairCalibration
from gossamer.compression.pytree import compress_pytree
from gossamer.compression.report import (
    AccuracyChange,
    BleuChange,
    PerplexityChange,
    Report,
    peak_memory_bytes,
    versions,
    write_report,
)
from gossamer.compression.sinks import FolderSink, MemorySink
from gossamer.data import Images
from gossamer.evaluation import (
    model_images,
)
from gossamer.loading import Checkpoint
from gossamer.models import T5Config, ViTConfig, decoder_config
from gossamer.packing import model_bytes
from gossamer.recipe import Recipe, Rule

Model = TypeVar("Model")


def compress(
    model: Model,
    recipe: Recipe | str,
    *,
    method: Method | MethodName | None = None,
    calibration: CalibrationData | Images | str | None = None,
    seed: int = 0,
    reduction_axis: int = 0,
) -> Model:
    """Prunes and quantizes a model of ours or any pytree of parameters, in one shot.

    Args:
        model: what `gossamer.load` returns; or any pytree of parameters, whose matched 2-D leaves
            are pruned by magnitude and rounded to nearest (see `compress_pytree`).
        recipe: a recipe, a preset's name or a recipe file.
        method: a method with its settings, such as `GPTQ(damping=0.1)`, or the name of one:
            `rtn`, `magnitude`, `random`, `wanda`, `sparsegpt`, `gptq`, `wanda-gptq`, `obr`, `awq`
            or `smoothquant`. None is `sparsegpt` where the recipe has a pattern and `rtn` where
            it has none.
        calibration: for a language model a text file, "builtin", or a `Calibration`; None is
            "builtin" where the method needs one. A text is cut into 64 sequences of 512 tokens.
            For a vision model images: a folder, an `.npz` or "digits" (see
            `gossamer.data.read_images`), `Images`, of which 64 are drawn, or an
            `ImageCalibration`. For an encoder-decoder a file of pairs (see
            `gossamer.data.read_pairs`), packed in 64 rows of 512 tokens, or a `PairCalibration`.
        seed: for the choice of calibration inputs and for methods that draw.
        reduction_axis: of a pytree's kernels: 0 where they are `[in, out]`, 1 where they are
            `[out, in]` (Equinox, PyTorch).

    Returns:
        A model of the same kind: packed weights in memory, or the pytree with compressed values.

    Raises:
        ValueError: the recipe does not suit the model, a weight or an activation is not finite,
            the calibration text is too short, or the images or pairs are not for the model.
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
    calibration: CalibrationData | Images | str | None = None,
    sequences: int = 64,
    sequence_length: int = 512,
    seed: int = 0,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
    evaluation: EvaluationData | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, Report]:
    """Compresses a model and reports on it.

    Args:
        checkpoint: the dense model.
        recipe: what is done to which weights.
        method: as in `compress`.
        calibration: as in `compress`.
        sequences: calibration sequences cut from a text, rows of pairs, or images drawn from
            those given.
        sequence_length: tokens of a sequence or a row.
        seed: as in `compress`.
        out: folder for the result; None keeps it in memory. An interrupted run resumes at the
            block where it stopped when it is asked for the same again.
        overwrite: replace `out` when it exists; it stays whole until the new one is complete.
        evaluation: windows for the perplexity before and after, images for the accuracy, or pairs
            for BLEU; None leaves it out.
        progress: see `Progress`.

    Returns:
        The compressed model, and the report, which is in `out` too.

    Raises:
        ValueError: as in `compress`; windows or images are not for this model; `out` exists and
            `overwrite` is not set.
    """
    clock = Clock()
    job = _job(checkpoint, recipe, method, calibration, sequences, sequence_length, seed)
    rules = job.rules()
    check_evaluation(checkpoint, evaluation)
    sink: Sink = MemorySink(job) if out is None else FolderSink(job, out, overwrite=overwrite)
    steps = checkpoint.config.num_blocks + 1
    with clock.stage("compress"):
        kernels = run(job, sink, progress(f"{recipe.name}, {job.method.name}", steps))
        compressed = sink.finish()
    change = measure(checkpoint, compressed, evaluation, clock, progress)
    report = _report(job, rules, compressed, kernels, change, out, clock.seconds)
    if out is not None:
        write_report(report, out)
    return compressed, report


def _job(
    checkpoint: Checkpoint,
    recipe: Recipe,
    method: Method | MethodName | None,
    calibration: CalibrationData | Images | str | None,
    sequences: int,
    sequence_length: int,
    seed: int,
) -> Job:
    if method is None:
        method = "sparsegpt" if any(rule.pattern for rule in recipe.rules) else "rtn"
    if not isinstance(method, Method):
        method = make_method(method, {})
    config = checkpoint.config
    if calibration is None and method.calibrated and not isinstance(config, ViTConfig | T5Config):
        calibration = BUILTIN
    if isinstance(calibration, str | pathlib.Path) and isinstance(config, ViTConfig):
        calibration = model_images(checkpoint, calibration)
    if isinstance(calibration, str | pathlib.Path) and isinstance(config, T5Config):
        calibration = PairCalibration.from_pairs(
            calibration,
            checkpoint.require_tokenizer(),
            count=sequences,
            length=sequence_length,
            seed=seed,
            config=config,
        )
    if isinstance(calibration, Images):
        processing = checkpoint.require_image_processing()
        calibration = ImageCalibration.from_images(
            calibration, processing, count=sequences, seed=seed
        )
    if isinstance(calibration, str | pathlib.Path):
        tokenizer = checkpoint.require_tokenizer()
        limit = decoder_config(config).max_positions
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


def _report(
    job: Job,
    rules: Mapping[str, Rule],
    compressed: Checkpoint,
    kernels: list[KernelReport],
    change: Change | None,
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
        perplexity=change if isinstance(change, PerplexityChange) else None,
        accuracy=change if isinstance(change, AccuracyChange) else None,
        bleu=change if isinstance(change, BleuChange) else None,
        kernels=kernels,
        rescaled=rescaled,
        untouched=[path for path in job.checkpoint.paths if path not in touched],
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
    )
