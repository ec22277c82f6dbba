"""How near a model comes to translations that people wrote, and how likely it holds these."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gossamer.data import Pair, PairRows, encode_pairs, pack_pairs
from gossamer.evaluation.likelihood import loss_sum
from gossamer.inference.blockwise import begin, group_size, run_blocks
from gossamer.inference.encoder_decoder import (
    Decode,
    batches_of,
    encoder_decoder_config,
    source_tokens,
    translate,
    translate_with,
)
from gossamer.loading import Checkpoint
from gossamer.models import T5Inputs, build_ends
from gossamer.models.t5 import T5Flow

BATCH = 64
"""Sentences translated at once."""
ROW = 256
"""Tokens of a row on either side, which several pairs share; more where a pair is longer."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenTranslations:
    """How likely a model holds translations that people wrote.

    Attributes:
        cross_entropy: mean negative log-likelihood, in nats a token of the model's own tokenizer,
            the token that ends each translation included.
        predictions: tokens predicted.
        seconds: wall time, reading the weights and compiling included.
    """

    cross_entropy: float
    predictions: int
    seconds: float


def given_translations(
    checkpoint: Checkpoint,
    pairs: Sequence[Pair],
    stage: Callable[[int], Callable[[], None]] = lambda _: lambda: None,
) -> GivenTranslations:
    """Measures how well the model predicts each token of the targets from those before it.

    Every pair counts, also where a source has several. Models compare by it where they share a
    tokenizer.

    Args:
        checkpoint: an encoder-decoder with its tokenizer, dense or packed; blocks are read one at a
            time.
        pairs: sources and targets.
        stage: told the number of steps, returns what is called after each.

    Raises:
        ValueError: see `check_pairs`; the likelihood is not finite.
    """
    start = time.perf_counter()
    check_pairs(checkpoint, pairs)
    config = encoder_decoder_config(checkpoint.config)
    rows = _rows(checkpoint, pairs)
    count, length = rows.source.shape
    size = group_size(count, length, 2 * config.hidden_size)
    groups = list(_groups(rows, size))
    advance = stage(len(groups) * config.num_blocks)
    graph, state = nnx.split(build_ends(config, checkpoint.read))
    losses = []
    for group in groups:
        columns = group.source, group.target, group.source_segments, group.target_segments
        flow = begin(checkpoint, T5Inputs(*map(jnp.asarray, columns)))
        flow = run_blocks(checkpoint, flow, advance)
        assert isinstance(flow, T5Flow)
        rows_of = (flow.target, jnp.asarray(group.labels), group.target_segments != 0)
        losses += [
            float(loss_sum(graph, state, hidden, labels, counted))
            for hidden, labels, counted in zip(*rows_of, strict=True)
        ]
    predictions = int(np.count_nonzero(rows.target_segments))
    mean = math.fsum(losses) / predictions
    if not math.isfinite(mean):
        raise ValueError(
            f"The likelihood of model {checkpoint.source.get('name')!r} is {mean}: its weights or "
            "activations hold NaN or Inf, or its logits overflow; check the source with `inspect`."
        )
    seconds = time.perf_counter() - start
    return GivenTranslations(cross_entropy=mean, predictions=predictions, seconds=seconds)


def _rows(checkpoint: Checkpoint, pairs: Sequence[Pair]) -> PairRows:
    """All pairs in rows of one length."""
    config = encoder_decoder_config(checkpoint.config)
    tokens = encode_pairs(checkpoint.require_tokenizer(), pairs)
    # The short side counts too: rows of one pair need no more than it has.
    total = max(sum(len(pair[side]) + 1 for pair in tokens) for side in (0, 1))
    longest = max(len(side) + 1 for pair in tokens for side in pair)
    length = max(longest, min(total, ROW))
    return pack_pairs(tokens, length, start_id=config.start_id, end_id=config.end_id)


def _groups(rows: PairRows, size: int) -> Iterator[PairRows]:
    """The rows in groups of one size, the last filled up with padding: one function serves all."""
    for first in range(0, len(rows.source), size):
        parts = [column[first : first + size] for column in rows]
        missing = size - len(parts[0])
        yield PairRows(*(np.pad(part, ((0, missing), (0, 0))) for part in parts))
