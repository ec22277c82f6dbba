"""How near a model's translations come to those that people wrote."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from gossamer.data import Pair
from gossamer.inference.encoder_decoder import (
    Decode,
    batches_of,
    source_tokens,
    translate,
    translate_with,
)
from gossamer.loading import Checkpoint

BATCH = 64
"""Sentences translated at once."""


_NO_PAIRS = "There are no pairs to translate."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translations:
    """A BLEU and how it came about.

    Attributes:
        bleu: 0 to 100, over all sentences together, each against all its references.
        signature: how sacrebleu counted, for papers.
        sentences: how many different sources.
        words_per_second: words of the translations, as sacrebleu cuts them, over wall time,
            compiling included.
        seconds: wall time.
        texts: source and translation, in the order of the pairs.
    """

    bleu: float
    signature: str
    sentences: int
    words_per_second: float
    seconds: float
    texts: tuple[tuple[str, str], ...]


def bleu_steps(pairs: Sequence[Pair]) -> int:
    """How often `bleu` advances."""
    sources = {pair.source for pair in pairs}
    return len(batches_of([1] * len(sources), BATCH))


def check_pairs(checkpoint: Checkpoint, pairs: Sequence[Pair]) -> None:
    """Raises ValueError where the sources of these pairs cannot be translated; reads no weight.

    The model must be an encoder-decoder with a tokenizer, and no source longer than it reads.
    """
    if not pairs:
        raise ValueError(_NO_PAIRS)
    source_tokens(checkpoint, list({pair.source: None for pair in pairs}))


def bleu(
    checkpoint: Checkpoint,
    pairs: Sequence[Pair],
    *,
    max_tokens: int = 128,
    advance: Callable[[], None] = lambda: None,
    decode: Decode | None = None,
) -> Translations:
    """Translates every source once and compares with all targets that it has.

    Args:
        checkpoint: an encoder-decoder with its tokenizer, dense or packed.
        pairs: sources and targets; a source may have several.
        max_tokens: of a translation, at most.
        advance: called after each of the batches, for a progress bar.
        decode: translates tokens in place of the checkpoint's weights.

    Raises:
        ValueError: see `check_pairs`.

    Source: Papineni et al. 2002; Post 2018, arXiv 1804.08771, whose sacrebleu counts.
    """
    if not pairs:
        raise ValueError(_NO_PAIRS)
    references: dict[str, list[str]] = {}
    for pair in pairs:
        references.setdefault(pair.source, []).append(pair.target)
    start = time.perf_counter()
    sources = list(references)
    settings = {"max_tokens": max_tokens, "batch": BATCH, "advance": advance}
    if decode is None:
        written = translate(checkpoint, sources, **settings)
    else:
        written = translate_with(decode, checkpoint, sources, **settings)
    seconds = time.perf_counter() - start
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    most = max(map(len, references.values()))
    streams: Any = [  # sacrebleu takes None where a source has fewer, though its types do not
        [targets[n] if n < len(targets) else None for targets in references.values()]
        for n in range(most)
    ]
    score = metric.corpus_score(written, streams)
    return Translations(
        bleu=score.score,
        signature=str(metric.get_signature()),
        sentences=len(sources),
        words_per_second=score.sys_len / seconds,
        seconds=seconds,
        texts=tuple(zip(sources, written, strict=True)),
    )
