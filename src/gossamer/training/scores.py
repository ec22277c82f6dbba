"""What a trained model is worth in the terms of its task, computed as it was trained."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from gossamer.evaluation import Translations, bleu, bleu_steps
from gossamer.inference import greedy
from gossamer.training.config import TrainingConfig
from gossamer.training.corpora import Corpus, PairCorpus
from gossamer.training.loop import Trained
from gossamer.training.saving import as_checkpoint
from gossamer.training.sharding import make_mesh
from gossamer.training.step import Step

Progress = Callable[[str, int], Callable[[], None]]


def task_scores(
    config: TrainingConfig,
    trained: Trained,
    corpus: Corpus,
    progress: Progress = lambda name, steps: lambda: None,
) -> dict[str, Any]:
    """What papers on the task report, by name; nothing for texts, whose loss says it all.

    Translations have `bleu` over all pairs held out, their number and sacrebleu's signature.

    Args:
        config: of the run.
        trained: what it ended with.
        corpus: what it learned from.
        progress: as `train` takes it.
    """
    if not isinstance(corpus, PairCorpus):
        return {}
    advance = progress("translating", bleu_steps(corpus.held_out))
    found = translations(config, trained, corpus, advance)
    chosen = ("bleu", "signature", "sentences")
    return {name: value for name, value in dataclasses.asdict(found).items() if name in chosen}


def translations(
    config: TrainingConfig,
    trained: Trained,
    corpus: PairCorpus,
    advance: Callable[[], None] = lambda: None,
) -> Translations:
    """BLEU on the pairs held out, with the numerics of training: quantized as in the loss.

    Args:
        config: of the run.
        trained: what it ended with.
        corpus: what it learned from.
        advance: called after each batch of sentences.
    """
    step = Step(config, make_mesh(config.mesh))

    @functools.partial(jax.jit, static_argnums=3)
    def decode(
        weights: dict[str, Array], source: Int[Array, "B S"], segments: Int[Array, "B S"], most: int
    ) -> Int[Array, "B most"]:
        return greedy(step.model(weights), source, segments, most)

    most = config.length
    # Of this process alone: sentences are, and weights may be laid out over several.
    weights = {path: jnp.asarray(np.asarray(leaf)) for path, leaf in trained.weights.items()}
    return bleu(
        as_checkpoint(config, trained.weights, corpus),
        corpus.held_out,
        max_tokens=most,
        advance=advance,
        decode=lambda source, segments: decode(weights, source, segments, most),
    )
