"""One-shot compression of a language model: no training, one block in memory at a time.

Blocks are compressed in order, each on the activations that the already compressed ones give; the
statistics of a block are those of its uncompressed weights (Frantar and Alistarh 2023, arXiv
2301.00774, and their released code). Embedding and output kernels come first and are pruned by
magnitude and rounded to nearest: their inputs are not measured.
"""

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.calibration import Calibration
from gossamer.compression.kernel import KernelReport, compress_kernel, kernel_method
from gossamer.compression.methods import Method
from gossamer.compression.methods.method import CalibratedBlock, Task
from gossamer.compression.observe import input_statistics
from gossamer.compression.rescale import fold, rescalable, rescaled_gram, sources
from gossamer.inference.blockwise import embed, run_block
from gossamer.loading import Checkpoint
from gossamer.loading.checkpoint import parts
from gossamer.models import Rescalable, build_block, model_class
from gossamer.packing import Packed, check_packable
from gossamer.recipe import Recipe, Rule

Tensors: TypeAlias = Mapping[str, Packed | np.ndarray]
Value = TypeVar("Value")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """All that decides the result of a compression.

    Attributes:
        checkpoint: the dense model.
        recipe: what is done to which weights.
        method: how weights are chosen and rounded.
        calibration: the text whose activations guide the method; None where it needs none.
        seed: for methods that draw.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    method: Method
    calibration: Calibration | None
    seed: int

    def rules(self) -> dict[str, Rule]:
        """Each selected kernel's rule; all faults of the recipe on this model are reported at once.

        Raises:
            ValueError: a rule matches nothing; a matched weight is no kernel; its shape does not
                suit the pattern or the groups; the method needs a calibration text, or that text's
                tokens are not the model's.
        """
        if self.method.calibrated and self.calibration is None:
            raise ValueError(
                f"Method {self.method.name!r} needs a calibration text; give one, or choose "
                "magnitude."
            )
        vocabulary = self.checkpoint.config.vocab_size
        if self.calibration is not None and (most := self.calibration.tokens.max()) >= vocabulary:
            raise ValueError(
                f"Calibration token {most} is outside the vocabulary of {vocabulary}: the tokens "
                "were made by another model's tokenizer."
            )
        rules = select_kernels(self.checkpoint, self.recipe)
        self._check_method(rules)
        return rules

    def _check_method(self, rules: Mapping[str, Rule]) -> None:
        """Raises ValueError where the method cannot do what a rule asks for."""
        reasons: dict[str, str] = {}  # reason -> the first kernel that it is true of
        for path, rule in rules.items():
            method = kernel_method(self.method, _block_of(path) is not None, rule)
            if reason := method.why_not(rule):
                reasons.setdefault(reason, path)
        if reasons:
            faults = " ".join(f"{path}: {reason}" for reason, path in reasons.items())
            raise ValueError(f"Recipe {self.recipe.name!r} does not suit the method: {faults}")

    def rescaled(self, rules: Mapping[str, Rule], index: int) -> list[Rescalable]:
        """The inputs of block `index` that the method rescales."""
        prefix = f"layers.{index}."
        return rescalable(
            model_class(self.checkpoint.config).Block,
            self.method,
            {path: tensor.shape for path, tensor in _within(prefix, self.checkpoint.tensors)},
            dict(_within(prefix, rules)),
        )


def _block_of(path: str) -> int | None:
    """The number of the block that a parameter is in."""
    match = re.match(r"layers\.(\d+)\.", path)
    return int(match[1]) if match else None


def _within(prefix: str, named: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """What lies under a prefix, by the rest of its name."""
    for path, value in named.items():
        if path.startswith(prefix):
            yield path.removeprefix(prefix), value


def select_kernels(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Rule]:
    """Each kernel that `recipe` selects, with its rule; no weight is read.

    Raises:
        ValueError: the recipe does not suit the model; all faults are named.
    """
    rules = recipe.match(checkpoint.paths)
    faults = [
        fault
        for path, rule in rules.items()
        if (fault := _fault(path, rule, checkpoint.tensors[path].shape))
    ]
    if faults:
        raise ValueError(f"Recipe {recipe.name!r} does not suit this model: " + " ".join(faults))
    return rules


def _fault(path: str, rule: Rule, shape: tuple[int, ...]) -> str | None:
    """Why `rule` cannot be done to this weight."""
    if not path.endswith(".kernel") or len(shape) != 2:
        return f"{path} {shape} is not a kernel [in, out]; narrow the rule {rule.path!r}."
    try:
        if rule.pattern is not None:
            rule.pattern.check(shape, 0)
        if rule.weights is not None:
            rule.weights.groups(shape[0])
        check_packable((shape[0], shape[1]), rule.pattern, rule.weights)
    except ValueError as error:
        return f"{path} {shape}: {error}"
    return None


def run(job: Job, sink: Sink, advance: Callable[[], None] = lambda: None) -> list[KernelReport]:
    """Compresses every part of the model in order and hands each to `sink`.

    Parts that `sink` has already are not compressed again: calibration activations are taken
    through them, which gives the same numbers as in the run that made them.

    Args:
        job: the work; its faults raise ValueError before any weight is read.
        sink: takes the parts.
        advance: called after each of the `num_layers + 1` parts.
    """
    rules = job.rules()
    groups = parts(job.checkpoint.paths)
    reports: list[KernelReport] = []
    hidden: Float[Array, "B T D"] | None = None
    for part, paths in enumerate(groups):
        done = sink.finished(part)
        if done is None:
            done = _compress_part(job, rules, paths, part, hidden)
            sink.put(part, *done)
        tensors, part_reports = done
        reports += part_reports
        if job.calibration is not None:
            hidden = _propagate(job, part, tensors, hidden)
        advance()
    return reports


def _compress_part(
    job: Job,
    rules: Mapping[str, Rule],
    paths: list[str],
    part: int,
    hidden: Float[Array, "B T D"] | None,
) -> tuple[Tensors, list[KernelReport]]:
    """Reads the weights of a part, measures their inputs, and compresses those with a rule."""
    dense = {path: _read_dense(job.checkpoint, path) for path in paths}
    selected = [path for path in paths if path in rules]
    grams: Mapping[str, Float[Array, "in in"]] = {}
    if part > 0 and hidden is not None and selected:
        grams, changed = _prepare_block(job, rules, dense, part - 1, hidden)
        dense |= changed
    tensors: dict[str, Packed | np.ndarray] = dict(dense)
    reports = []
    scores = model_class(job.checkpoint.config).Block.SCORE_PROJECTIONS
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
        tensors[path], report = compress_kernel(task, method)
        _warn_of_damping(report, job.method)
        reports.append(report)
    return tensors, reports


def _prepare_block(
    job: Job,
    rules: Mapping[str, Rule],
    dense: Mapping[str, Float[np.ndarray, "..."]],
    index: int,
    hidden: Float[Array, "B T D"],
) -> tuple[dict[str, Float[Array, "in in"]], dict[str, Float[np.ndarray, "..."]]]:
    """The Gram matrices of a block's inputs, and the parameters that rescaling has changed."""
    prefix = f"layers.{index}."
    block = build_block(job.checkpoint.config, dense.__getitem__, index)
    local_rules = dict(_within(prefix, rules))
    inputs = input_statistics(block, hidden, list(local_rules))
    grams = {path: statistics.gram for path, statistics in inputs.items()}
    weights = dict(_within(prefix, dense))
    changed: dict[str, Float[np.ndarray, ...]] = {}
    if pairs := job.rescaled(rules, index):
        calibrated = CalibratedBlock(block=block, hidden=hidden, inputs=inputs, rules=local_rules)
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


def rescaled_paths(job: Job, rules: Mapping[str, Rule]) -> list[str]:
    """Parameters without a rule that rescaling changes: norms, biases, projections left floats."""
    changed: set[str] = set()
    for index in range(job.checkpoint.config.num_layers):
        prefix = f"layers.{index}."
        present = [path for path, _ in _within(prefix, job.checkpoint.tensors)]
        changed |= {prefix + path for path in sources(job.rescaled(rules, index), present)}
    return [path for path in job.checkpoint.paths if path in changed and path not in rules]


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


def _propagate(
    job: Job, part: int, tensors: Tensors, hidden: Float[Array, "B T D"] | None
) -> Float[Array, "B T D"]:
    """The calibration activations behind a part, computed with its compressed weights."""
    if part == 0:
        assert job.calibration is not None
        ends = job.checkpoint.with_tensors(tensors)
        out = embed(ends, jnp.asarray(job.calibration.tokens))
    else:
        assert hidden is not None
        out = run_block(build_block(job.checkpoint.config, tensors.__getitem__, part - 1), hidden)
    if not bool(jnp.isfinite(jax.block_until_ready(out)).all()):
        where = "the embedding" if part == 0 else f"block layers.{part - 1}"
        raise ValueError(
            f"Activations behind {where} hold NaN or Inf on the calibration text; the recipe "
            f"{job.recipe.name!r} breaks this block, or the source model overflows there."
        )
    return out
