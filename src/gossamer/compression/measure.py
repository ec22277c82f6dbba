"""What a compression cost: perplexity, accuracy or BLEU of a model before and after."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from gossamer.compression.report import AccuracyChange, BleuChange, PerplexityChange
from gossamer.data import Images, Pair
from gossamer.evaluation import (
    GivenTranslations,
    Translations,
    accuracy,
    accuracy_steps,
    bleu,
    bleu_steps,
    check_images,
    check_pairs,
    check_windows,
    given_translations,
    perplexity,
)
from gossamer.loading import Checkpoint

Progress = Callable[[str, int], Callable[[], None]]
"""Told a stage and its number of steps; returns what is called after each step."""


def silent(_stage: str, _steps: int) -> Callable[[], None]:
    """Shows nothing."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairEvaluation:
    """The pairs of texts on which BLEU is measured before and after.

    Attributes:
        source: name of the file.
        pairs: texts and their translations; a text may have several.
        max_tokens: of a translation, at most.
    """

    source: str
    pairs: Sequence[Pair]
    max_tokens: int = 128


EvaluationData: TypeAlias = Evaluation | Images | PairEvaluation
"""Windows for a perplexity, images for an accuracy, or pairs for BLEU."""
Change: TypeAlias = PerplexityChange | AccuracyChange | BleuChange


def check_evaluation(checkpoint: Checkpoint, evaluation: EvaluationData | None) -> None:
    """Raises ValueError where a model cannot be measured so; reads no weight."""
    if isinstance(evaluation, Images):
        check_images(checkpoint, evaluation)
    elif isinstance(evaluation, PairEvaluation):
        check_pairs(checkpoint, evaluation.pairs)
    elif evaluation is not None:
        check_windows(checkpoint, evaluation.tokens)


class Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes how long it takes."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def measure(
    dense: Checkpoint,
    compressed: Checkpoint,
    evaluation: EvaluationData | None,
    clock: Clock,
    progress: Progress,
) -> Change | None:
    """Measures both models on the same.

    Args:
        dense: the model before.
        compressed: the model after.
        evaluation: on what; None measures nothing.
        clock: is told the seconds of each stage.
        progress: see `Progress`.
    """
    if isinstance(evaluation, Images):
        return _measure_accuracy(dense, compressed, evaluation, clock, progress)
    if isinstance(evaluation, PairEvaluation):
        return _measure_bleu(dense, compressed, evaluation, clock, progress)
    if evaluation is not None:
        return _measure_perplexity(dense, compressed, evaluation, clock, progress)
    return None


def _measure_perplexity(
    dense: Checkpoint,
    compressed: Checkpoint,
    evaluation: Evaluation,
    clock: Clock,
    progress: Progress,
) -> PerplexityChange:
    steps = dense.config.num_blocks
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


def _measure_accuracy(
    dense: Checkpoint, compressed: Checkpoint, images: Images, clock: Clock, progress: Progress
) -> AccuracyChange:
    steps = accuracy_steps(dense, images)
    with clock.stage("accuracy before"):
        before = accuracy(dense, images, progress("accuracy before", steps))
    with clock.stage("accuracy after"):
        after = accuracy(compressed, images, progress("accuracy after", steps))
    return AccuracyChange(
        source=images.source,
        images=len(images),
        before=before.accuracy,
        after=after.accuracy,
        cross_entropy_before=before.cross_entropy,
        cross_entropy_after=after.cross_entropy,
    )


def _measure_bleu(
    dense: Checkpoint,
    compressed: Checkpoint,
    evaluation: PairEvaluation,
    clock: Clock,
    progress: Progress,
) -> BleuChange:
    (before, loss_before), (after, loss_after) = (
        _translated(checkpoint, evaluation, when, clock, progress)
        for checkpoint, when in ((dense, "before"), (compressed, "after"))
    )
    return BleuChange(
        source=evaluation.source,
        sentences=before.sentences,
        signature=before.signature,
        before=before.bleu,
        after=after.bleu,
        cross_entropy_before=loss_before.cross_entropy,
        cross_entropy_after=loss_after.cross_entropy,
    )


def _translated(
    checkpoint: Checkpoint, evaluation: PairEvaluation, when: str, clock: Clock, progress: Progress
) -> tuple[Translations, GivenTranslations]:
    """What the model writes itself, and how likely it holds what people wrote."""
    pairs, written, given = evaluation.pairs, f"BLEU {when}", f"cross-entropy {when}"
    with clock.stage(written):
        advance = progress(written, bleu_steps(pairs))
        found = bleu(checkpoint, pairs, max_tokens=evaluation.max_tokens, advance=advance)
    with clock.stage(given):
        return found, given_translations(checkpoint, pairs, functools.partial(progress, given))
