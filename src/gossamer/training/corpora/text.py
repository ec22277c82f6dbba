"""A text as windows of tokens."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int

from gossamer.data import Tokenizer, python_sources, read_text
from gossamer.loading import Checkpoint
from gossamer.models import decoder_config
from gossamer.training.config import DataConfig, TrainingConfig
from gossamer.training.corpora.corpus import Corpus, spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextCorpus(Corpus):
    """A text as tokens, in the part that is learned from and the part that is held out.

    Attributes:
        learned: tokens, in the text's order.
        held_out: those behind them.
        tokenizer: what made them.
        name: of the text.
    """

    learned: Int[np.ndarray, " tokens"]
    held_out: Int[np.ndarray, " rest"]
    tokenizer: Tokenizer
    name: str = "in memory"

    @classmethod
    def read(cls, data: DataConfig) -> "TextCorpus":
        """Reads and tokenizes a text.

        Raises:
            ValueError: the text or the tokenizer cannot be read.
        """
        text = python_sources() if data.text == "python" else read_text(data.text)
        if data.tokenizer == "bytes":
            tokenizer = Tokenizer.of_bytes()
            # What the tokenizer gives, without a minute of its work.
            tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        else:
            found = Tokenizer.from_folder(Path(data.tokenizer))
            if found is None:
                raise ValueError(
                    f"There is no tokenizer.json in {data.tokenizer}; name a model's folder, or "
                    "bytes."
                )
            tokenizer, tokens = found, np.asarray(found.encode(text), np.int32)
        cut = len(tokens) - int(len(tokens) * data.held_out)
        return cls(learned=tokens[:cut], held_out=tokens[cut:], tokenizer=tokenizer, name=data.text)

    def check(self, config: TrainingConfig) -> None:
        """Raises ValueError where a run cannot learn from it or be evaluated on it."""
        vocabulary = decoder_config(config.model).vocab_size
        need = config.length + 1
        faults = [
            f"its part {name} has {len(part)} tokens, fewer than one window of {need}"
            for name, part in (("to learn from", self.learned), ("held out", self.held_out))
            if len(part) < need
        ]
        if self.tokenizer.vocab_size > vocabulary:
            faults.append(
                f"its tokenizer has {self.tokenizer.vocab_size} tokens, and the model only "
                f"{vocabulary}"
            )
        if faults:
            raise ValueError(f"The text {self.name!r} does not do: {'; '.join(faults)}.")

    def examples(self, config: TrainingConfig) -> "Windows":
        """Windows of `context + 1` tokens."""
        return Windows(self.learned, config.length)

    def complete(self, checkpoint: Checkpoint) -> Checkpoint:
        """With the tokenizer."""
        return dataclasses.replace(checkpoint, tokenizer=self.tokenizer)

    def evaluation(self, config: TrainingConfig) -> Int[np.ndarray, "windows length"]:
        """Windows held out."""
        return self.windows(config.length, config.evaluation_windows)

    def windows(self, context: int, count: int | None) -> Int[np.ndarray, "windows length"]:
        """Windows of `context + 1` tokens held out, evenly spread; None takes all."""
        windows = Windows(self.held_out, context)
        return spread(np.stack([windows[index] for index in range(len(windows))]), count)


@dataclasses.dataclass(frozen=True)
class Windows:
    """A text's windows of `context` predictions: every token but the first is predicted once.

    Attributes:
        tokens: of the text.
        context: predictions of a window, which is a token longer.

    Example:
        >>> windows = Windows(np.arange(8, dtype=np.int32), 3)
        >>> len(windows), windows[1]
        (2, array([3, 4, 5, 6], dtype=int32))
    """

    tokens: Int[np.ndarray, " tokens"]
    context: int

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context

    def __getitem__(self, index: int) -> Int[np.ndarray, " length"]:
        start = index * self.context
        return self.tokens[start : start + self.context + 1]
