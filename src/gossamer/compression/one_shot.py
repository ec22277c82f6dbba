"""One-shot compression of a model: no training, one block in memory at a time.

Blocks are compressed in order, each on the activations that the already compressed ones give; the
statistics of a block are those of its uncompressed weights (Frantar and Alistarh 2023, arXiv
2301.00774, and their released code). The kernels of the two ends come first and are pruned by
magnitude and rounded to nearest: their inputs are not measured.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.job import Job, within
from gossamer.compression.kernel import KernelReport, compress_kernel, kernel_method
from gossamer.compression.methods import Method
from gossamer.compression.methods.method import CalibratedBlock, Task
from gossamer.compression.observe import input_statistics
from gossamer.compression.rescale import fold, rescaled_gram
from gossamer.inference.blockwise import begin, run_block
from gossamer.loading import Checkpoint
from gossamer.loading.checkpoint import parts
from gossamer.models import Flow, block_class, build_block
from gossamer.recipe import Rule
from gossamer.weights import Weight

Tensors: TypeAlias = Mapping[str, Weight | np.ndarray]
"""Weights of a part, by path; what goes to a folder is packed."""
Compress: TypeAlias = Callable[[Task, Method], tuple[Weight | np.ndarray, KernelReport]]
"""What one kernel becomes: `compress_kernel`, or what leaves it in another form."""


@runtime_checkable
class Sink(Protocol):
    """Where finished parts go; part 0 is all that is in no block, part i + 1 is block i."""

    def finished(self, part: int) -> tuple[Tensors, list[KernelReport]] | None:
        """What an interrupted run left of a part, or None."""
        ...

    def put(self, part: int, tensors: Tensors, reports: list[KernelReport]) -> None:
        """Takes a part; when it returns, an interruption cannot lose it."""
        ...

    def finish(self) -> Checkpoint:
        """The compressed model, after the last part."""
        ...


def run(
    job: Job,
    sink: Sink,
    advance: Callable[[], None] = lambda: None,
    compress: Compress = compress_kernel,
) -> list[KernelReport]:
    """Compresses every part of the model in order and hands each to `sink`.

    Parts that `sink` has already are not compressed again: calibration activations are taken
    through them, which gives the same numbers as in the run that made them.

    Args:
        job: the work; its faults raise ValueError before any weight is read.
        sink: takes the parts.
        advance: called after each of the `num_layers + 1` parts.
        compress: what is done to one kernel.
    """
    rules = job.rules()
    groups = parts(job.checkpoint.paths)
    reports: list[KernelReport] = []
    flow: Flow | None = None
    for part, paths in enumerate(groups):
        done = sink.finished(part)
        if done is None:
            done = _compress_part(job, rules, paths, part, flow, compress)
            sink.put(part, *done)
        tensors, part_reports = done
        reports += part_reports
        if job.calibration is not None:
            flow = _propagate(job, part, tensors, flow)
        advance()
    return reports


def _compress_part(
    job: Job,
    rules: Mapping[str, Rule],
    paths: list[str],
    part: int,
    flow: Flow | None,
    compress: Compress,
) -> tuple[Tensors, list[KernelReport]]:
    """Reads the weights of a part, measures their inputs, and compresses those with a rule."""
    dense = {path: _read_dense(job.checkpoint, path) for path in paths}
    selected = [path for path in paths if path in rules]
    grams: Mapping[str, Float[Array, "in in"]] = {}
    if part > 0 and flow is not None and selected:
        grams, changed = _prepare_block(job, rules, dense, part - 1, flow)
        dense |= changed
    tensors: dict[str, Weight | np.ndarray] = dict(dense)
    reports = []
    config = job.checkpoint.config
    scores = block_class(config, config.blocks[part - 1]).SCORE_PROJECTIONS if part else ()
    for path in selected:
        task = Task(
            path=path,
            kernel=jnp.asarray(dense[path]),
            rule=rules[path],
            gram=grams.get(path),
            seed=job.seed,
            feeds_scores=path.removesuffix(".kernel").endswith(scores),
        )
        method = kernel_method(job.method, path in grams, rules[path])
        tensors[path], report = compress(task, method)
        _warn_of_damping(report, job.method)
        reports.append(report)
    return tensors, reports


def _prepare_block(
    job: Job,
    rules: Mapping[str, Rule],
    dense: Mapping[str, Float[np.ndarray, "..."]],
    index: int,
    flow: Flow,
) -> tuple[dict[str, Float[Array, "in in"]], dict[str, Float[np.ndarray, "..."]]]:
    """The Gram matrices of a block's inputs, and the parameters that rescaling has changed."""
    prefix = f"{job.checkpoint.config.blocks[index]}."
    block = build_block(job.checkpoint.config, dense.__getitem__, index)
    local_rules = dict(within(prefix, rules))
    inputs = input_statistics(block, flow, list(local_rules))
    grams = {path: statistics.gram for path, statistics in inputs.items()}
    weights = dict(within(prefix, dense))
    changed: dict[str, Float[np.ndarray, ...]] = {}
    if pairs := job.rescaled(rules, index):
        calibrated = CalibratedBlock(block=block, flow=flow, inputs=inputs, rules=local_rules)
        for pair, scale in job.method.scalings(calibrated, pairs):
            factors = np.asarray(scale)
            changed |= fold(weights | changed, pair, factors)
            for name in pair.projections:
                path = f"{name}.kernel"
                grams[path] = rescaled_gram(grams[path], factors)
    return (
        {prefix + path: gram for path, gram in grams.items()},
        {prefix + path: weight for path, weight in changed.items()},
    )


def _warn_of_damping(report: KernelReport, method: Method) -> None:
    asked = method.settings.get("damping")
    if report.damping is not None and asked is not None and report.damping > asked:
        warnings.warn(
            f"The Hessian of {report.path} {report.shape} is not positive definite with "
            f"damping {asked:g}; it was solved with {report.damping:g}.",
            stacklevel=2,
        )


def _read_dense(checkpoint: Checkpoint, path: str) -> Float[np.ndarray, "..."]:
    tensor = checkpoint.read(path)
    if not isinstance(tensor, np.ndarray):
        raise ValueError(
            f"{path} is compressed already ({type(tensor).__name__}); start from the dense model, "
            "or write it out with `export --dense` first."
        )
    if not np.isfinite(tensor).all():
        raise ValueError(f"Weight {path} {tensor.shape} holds NaN or Inf; mend the source model.")
    return tensor


def _propagate(job: Job, part: int, tensors: Tensors, flow: Flow | None) -> Flow:
    """The calibration activations behind a part, computed with its compressed weights."""
    if part == 0:
        assert job.calibration is not None
        ends = job.checkpoint.with_tensors(tensors)
        out = begin(ends, jax.tree.map(jnp.asarray, job.calibration.inputs))
    else:
        assert flow is not None
        out = run_block(build_block(job.checkpoint.config, tensors.__getitem__, part - 1), flow)
    if not all(bool(jnp.isfinite(each).all()) for each in jax.tree.leaves(out)):
        where = "the embedding" if part == 0 else f"block {job.checkpoint.config.blocks[part - 1]}"
        raise ValueError(
            f"Activations behind {where} hold NaN or Inf on the calibration inputs; the recipe "
            f"{job.recipe.name!r} breaks this block, or the source model overflows there."
        )
    return out
