"""The text whose activations guide a compression."""

import dataclasses
import hashlib
import pathlib

import numpy as np
from jaxtyping import Int

from gossamer.data import builtin_text, read_text, sequences
from gossamer.data.tokenizers import Tokenizer
from gossamer.models import ModelConfig, decoder_config

BUILTIN = "builtin"
"""Names the English text that every Python installation has, in place of a file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Token ids of a calibration text and where they come from.

    Attributes:
        text: name of the text.
        tokens: the sequences that are put through the model.
    """

    text: str
    tokens: Int[np.ndarray, "sequences sequence_length"]

    @classmethod
    def from_text(
        cls, source: str | pathlib.Path, tokenizer: Tokenizer, *, count: int, length: int, seed: int
    ) -> "Calibration":
        """Draws `count` sequences of `length` tokens from a text.

        Args:
            source: a text file, or "builtin" for the calibration part of Python's own help topics.
            tokenizer: the model's.
            count: how many sequences.
            length: tokens of each.
            seed: decides where they start.

        Raises:
            ValueError: the file cannot be read or is shorter than one sequence.
        """
        builtin = str(source) == BUILTIN
        text = builtin_text("calibration") if builtin else read_text(pathlib.Path(source))
        ids = tokenizer.encode(text)
        return cls(
            text="pydoc_data.topics (calibration part)" if builtin else pathlib.Path(source).name,
            tokens=sequences(ids, length=length, count=count, seed=seed),
        )

    @property
    def inputs(self) -> Int[np.ndarray, "sequences sequence_length"]:
        """What the model is given."""
        return self.tokens

    def check(self, config: ModelConfig) -> None:
        """Raises ValueError where the tokens are not this model's."""
        vocabulary = decoder_config(config).vocab_size
        if (most := self.tokens.max()) >= vocabulary:
            raise ValueError(
                f"Calibration token {most} is outside the vocabulary of {vocabulary}: the tokens "
                "were made by another model's tokenizer."
            )

    def describe(self) -> dict[str, str | int]:
        """Plain data for reports and provenance; the checksum is of the tokens as int32."""
        count, length = self.tokens.shape
        return {
            "text": self.text,
            "sequences": count,
            "sequence_length": length,
            "sha256": hashlib.sha256(self.tokens.astype("<i4").tobytes()).hexdigest(),
        }
