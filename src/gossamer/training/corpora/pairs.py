"""Pairs of texts as rows of tokens, several pairs in a row."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gossamer.data import (
    Pair,
    PairRows,
    PairTokens,
    Tokenizer,
    encode_pairs,
    pack_pairs,
    read_pairs,
    split_pairs,
)
from gossamer.loading import Checkpoint
from gossamer.models import T5Config
from gossamer.training.config import PairsConfig, TrainingConfig
from gossamer.training.corpora.corpus import Corpus, spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCorpus(Corpus):
    """Texts and their translations.

    Attributes:
        learned: to learn from.
        held_out: to evaluate on; no source is in both.
        tokenizer: of both sides.
        name: of the file.
    """

    learned: Sequence[Pair]
    held_out: Sequence[Pair]
    tokenizer: Tokenizer
    name: str = "in memory"

    @classmethod
    def read(cls, data: PairsConfig) -> "PairCorpus":
        """Reads pairs, and learns a tokenizer from those to learn from, if none is named.

        Raises:
            ValueError: no file is named, or it or the tokenizer cannot be read.
        """
        if data.pairs is None:
            raise ValueError(
                "No file of pairs is named: a text file with two columns and a tab between them, "
                "as `pairs` in the config's data, or on the command line as --data."
            )
        learned, held_out = split_pairs(read_pairs(data.pairs), data.held_out)
        if data.tokenizer is None:
            texts = (text for pair in learned for text in (pair.source, pair.target))
            tokenizer = Tokenizer.trained(texts, data.vocab_size)
        else:
            found = Tokenizer.from_folder(Path(data.tokenizer))
            if found is None:
                raise ValueError(
                    f"There is no tokenizer.json in {data.tokenizer}; name a model's folder, or "
                    "leave it out to learn one from the pairs."
                )
            tokenizer = found
        return cls(learned=learned, held_out=held_out, tokenizer=tokenizer, name=data.pairs)

    def check(self, config: TrainingConfig) -> None:
        """Raises ValueError where a run cannot learn from it or be evaluated on it."""
        model = config.model
        assert isinstance(model, T5Config)
        faults = [
            f"it has no pairs {part}; give more, or another share held out"
            for part, pairs in (("to learn from", self.learned), ("held out", self.held_out))
            if not pairs
        ]
        if self.tokenizer.vocab_size > model.vocab_size:
            faults.append(
                f"its tokenizer has {self.tokenizer.vocab_size} tokens, and the model only "
                f"{model.vocab_size}"
            )
        if model.end_id not in self.tokenizer.eos_ids:
            faults.append(
                f"its tokenizer ends texts with {sorted(self.tokenizer.eos_ids)}, and the model "
                f"with token {model.end_id}"
            )
        if faults:
            raise ValueError(f"The pairs {self.name!r} do not do: {'; '.join(faults)}.")

    def examples(self, config: TrainingConfig) -> "Rows":
        """Rows of `context` tokens on either side, packed in an order that the seed gives."""
        order = np.random.default_rng(config.seed).permutation(len(self.learned))
        tokens = [self._learned_tokens[index] for index in order]
        return Rows(_rows(tokens, config, "learn from"))

    def complete(self, checkpoint: Checkpoint) -> Checkpoint:
        """With the tokenizer."""
        return dataclasses.replace(checkpoint, tokenizer=self.tokenizer)

    def evaluation(self, config: TrainingConfig) -> PairRows:
        """Rows held out."""
        tokens = encode_pairs(self.tokenizer, self.held_out)
        return spread(_rows(tokens, config, "hold out"), config.evaluation_windows)

    @functools.cached_property
    def _learned_tokens(self) -> list[PairTokens]:
        """Made once for all runs that learn from this."""
        return encode_pairs(self.tokenizer, self.learned)


def _rows(tokens: Sequence[PairTokens], config: TrainingConfig, purpose: str) -> PairRows:
    """The pairs that fit in rows, packed; warns of those that do not."""
    model = config.model
    assert isinstance(model, T5Config)
    fitting = [pair for pair in tokens if max(map(len, pair)) < config.length]
    if left := len(tokens) - len(fitting):
        if not fitting:
            raise ValueError(
                f"None of the {len(tokens)} pairs to {purpose} fits in {config.length} "
                "tokens with the one that ends it; take a longer context."
            )
        warnings.warn(
            f"{left} of {len(tokens)} pairs to {purpose} are longer than {config.length} "
            "tokens with the one that ends them, and left out; a longer context takes them.",
            stacklevel=3,
        )
    return pack_pairs(fitting, config.length, start_id=model.start_id, end_id=model.end_id)


class Rows:
    """Rows one at a time."""

    def __init__(self, rows: PairRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows.source)

    def __getitem__(self, index: int) -> PairRows:
        return PairRows(*(field[index] for field in self._rows))
