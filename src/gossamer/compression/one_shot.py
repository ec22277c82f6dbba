"""One-shot compression of a language model: no training, one block in memory at a time.

Blocks are compressed in order, each on the activations that the already compressed ones give; the
statistics of a block are those of its uncompressed weights (Frantar and Alistarh 2023, arXiv
2301.00774, and their released code). Embedding and output kernels come first and are pruned by
magnitude and rounded to nearest: their inputs are not measured.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.calibration import Calibration
from gossamer.compression.kernel import CALIBRATED, KernelReport, Method, compress_kernel
from gossamer.compression.observe import input_grams
from gossamer.inference.blockwise import embed, run_block
from gossamer.loading import Checkpoint
from gossamer.loading.checkpoint import parts
from gossamer.models import build_block
from gossamer.packing import check_packable
from gossamer.recipe import Recipe, Rule
from gossamer.weights import Weight

Tensors: TypeAlias = Mapping[str, Weight | np.ndarray]
"""Weights of a part, by path; what goes to a folder is packed."""
Compress: TypeAlias = Callable[..., tuple[Weight | np.ndarray, KernelReport]]
"""What one kernel becomes, called as `compress_kernel` is."""


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
        if self.method in CALIBRATED and self.calibration is None:
            raise ValueError(
                f"Method {self.method!r} needs a calibration text; give one, or choose magnitude."
            )
        vocabulary = self.checkpoint.config.vocab_size
        if self.calibration is not None and (most := self.calibration.tokens.max()) >= vocabulary:
            raise ValueError(
                f"Calibration token {most} is outside the vocabulary of {vocabulary}: the tokens "
                "were made by another model's tokenizer."
            )
        rules = select_kernels(self.checkpoint, self.recipe)
        if self.method == "rtn" and any(rule.pattern for rule in rules.values()):
            raise ValueError(
                f"Method 'rtn' rounds and does not prune, but recipe {self.recipe.name!r} has a "
                "pattern; choose sparsegpt, wanda, magnitude or random."
            )
        return rules


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
    hidden: Float[Array, "B T D"] | None = None
    for part, paths in enumerate(groups):
        done = sink.finished(part)
        if done is None:
            done = _compress_part(job, rules, paths, part, hidden, compress)
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
    compress: Compress,
) -> tuple[Tensors, list[KernelReport]]:
    """Reads the weights of a part, measures their inputs, and compresses those with a rule."""
    dense = {path: _read_dense(job.checkpoint, path) for path in paths}
    selected = [path for path in paths if path in rules]
    grams: Mapping[str, Float[Array, "in in"]] = {}
    if part > 0 and hidden is not None and selected:
        prefix = f"layers.{part - 1}."
        block = build_block(job.checkpoint.config, dense.__getitem__, part - 1)
        local = input_grams(block, hidden, [path.removeprefix(prefix) for path in selected])
        grams = {prefix + path: gram for path, gram in local.items()}
    tensors: dict[str, Weight | np.ndarray] = dict(dense)
    reports = []
    for path in selected:
        tensors[path], report = compress(
            path, dense[path], rules[path], method=job.method, gram=grams.get(path), seed=job.seed
        )
        reports.append(report)
    return tensors, reports


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
