"""Batches of token windows: shuffled, the same for a seed, and from any position on.

The input pipeline is Grain's. Every batch is a function of the seed and its number alone, and the
windows of a batch are the same for any number of processes.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int

from gossamer.data import Tokenizer, python_sources, read_text
from gossamer.training.config import DataConfig, TrainingConfig

if TYPE_CHECKING:
    from grain import DatasetIterator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as tokens, in the part that is learned from and the part that is held out.

    Attributes:
        learned: tokens, in the text's order.
        held_out: those behind them.
        tokenizer: what made them.
    """

    learned: Int[np.ndarray, " tokens"]
    held_out: Int[np.ndarray, " rest"]
    tokenizer: Tokenizer

    @classmethod
    def read(cls, data: DataConfig) -> "Corpus":
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
        return cls(learned=tokens[:cut], held_out=tokens[cut:], tokenizer=tokenizer)

    def check(self, config: TrainingConfig) -> None:
        """Raises ValueError where a run cannot learn from it or be evaluated on it."""
        need = config.context + 1
        faults = [
            f"its part {name} has {len(part)} tokens, fewer than one window of {need}"
            for name, part in (("to learn from", self.learned), ("held out", self.held_out))
            if len(part) < need
        ]
        if self.tokenizer.vocab_size > config.model.vocab_size:
            faults.append(
                f"its tokenizer has {self.tokenizer.vocab_size} tokens, and the model only "
                f"{config.model.vocab_size}"
            )
        if faults:
            raise ValueError(f"The text {config.data.text!r} does not do: {'; '.join(faults)}.")

    def evaluation(self, context: int, count: int | None) -> Int[np.ndarray, "windows length"]:
        """Windows of `context + 1` tokens held out, evenly spread; None takes all."""
        windows = Windows(self.held_out, context)
        wanted = len(windows) if count is None else min(count, len(windows))
        chosen = np.arange(wanted) * len(windows) // wanted
        return np.stack([windows[int(index)] for index in chosen])


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


class Batches(Iterator[Int[np.ndarray, "rows length"]]):
    """This process's rows of one batch after the other, without end; epochs differ in their order.

    Process p of P has the rows p, p + P, ... of every batch.

    Args:
        tokens: what is learned from.
        context: predictions of a window.
        batch: windows of a step, of all processes together.
        seed: of the order.

    Raises:
        ValueError: the batch does not divide among the processes.
    """

    def __init__(
        self,
        tokens: Int[np.ndarray, " tokens"],
        *,
        context: int,
        batch: int,
        seed: int,
        process: int | None = None,
        processes: int | None = None,
    ) -> None:
        process = jax.process_index() if process is None else process
        processes = jax.process_count() if processes is None else processes
        if batch % processes:
            raise ValueError(f"A batch of {batch} does not divide among {processes} processes.")
        import grain  # seconds, which those who only wrap weights are spared

        windows = grain.MapDataset.source(Windows(tokens, context))
        shuffled = windows.seed(seed).shuffle().repeat()
        mine = shuffled[process::processes].batch(batch // processes)
        # A window is a slice of memory: threads that read ahead would cost more than they hide.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator: DatasetIterator[Any] = iter(mine.to_iter_dataset(options))

    def __next__(self) -> Int[np.ndarray, "rows length"]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The position, as plain data."""
        return dict(self._iterator.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self._iterator.set_state(state)
