"""The pairs of texts whose activations guide the compression of an encoder-decoder."""

import dataclasses
import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gossamer.data import Tokenizer, encode_pairs, pack_pairs, read_pairs
from gossamer.inference.encoder_decoder import encoder_decoder_config
from gossamer.models import ModelConfig, T5Config, T5Inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCalibration:
    """Texts and their translations as rows of tokens, and where they come from.

    A row holds several pairs, one behind the other, which do not see each other. What is left at
    its end is padding: no statistic of a kernel's inputs counts it.

    Attributes:
        source: name of the file.
        inputs: what the model is given.
    """

    source: str
    inputs: T5Inputs

    @classmethod
    def from_pairs(
        cls,
        file: str | Path,
        tokenizer: Tokenizer,
        *,
        count: int,
        length: int,
        seed: int,
        config: T5Config,
    ) -> "PairCalibration":
        """Draws pairs, none twice, and packs them in rows.

        Args:
            file: a text file with two columns and a tab between them; see
                `gossamer.data.read_pairs`.
            tokenizer: the model's.
            count: how many rows; fewer, where all pairs fit in fewer.
            length: tokens of a row, on either side. A pair that is longer is passed over.
            seed: decides which pairs, and their order.
            config: the model's, which knows the tokens that begin and end a text.

        Raises:
            ValueError: the file cannot be read or is no file of pairs, no pair fits in a row, or
                `count` is not positive.
        """
        if count < 1:
            raise ValueError(f"Calibration needs at least 1 row of pairs, got {count}.")
        pairs = read_pairs(file)
        # Each pair takes a token or more of a row: no more of them are ever needed.
        drawn = np.random.default_rng(seed).permutation(len(pairs))
        fitting = []
        for start in range(0, len(pairs), count * length):
            chosen = [pairs[index] for index in drawn[start : start + count * length]]
            tokens = encode_pairs(tokenizer, chosen)
            fitting += [pair for pair in tokens if max(map(len, pair)) < length]
            if len(fitting) >= count * length:
                break
        if not fitting:
            raise ValueError(
                f"None of the {len(pairs)} pairs of {file} fits in {length} tokens with the one "
                "that ends it; take longer sequences."
            )
        rows = pack_pairs(fitting, length, start_id=config.start_id, end_id=config.end_id)
        columns = rows.source, rows.target, rows.source_segments, rows.target_segments
        inputs = T5Inputs(*(jnp.asarray(column[:count]) for column in columns))
        return cls(source=Path(file).name, inputs=inputs)

    def check(self, config: ModelConfig) -> None:
        """Raises ValueError where the tokens are not this model's."""
        vocabulary = encoder_decoder_config(config).vocab_size
        most = max(int(self.inputs.source.max()), int(self.inputs.target.max()))
        if most >= vocabulary:
            raise ValueError(
                f"Calibration token {most} is outside the vocabulary of {vocabulary}: the tokens "
                "were made by another model's tokenizer."
            )

    def describe(self) -> dict[str, str | int]:
        """Plain data for reports and provenance; the checksum is of all inputs as int32."""
        inputs = self.inputs
        digest = hashlib.sha256()
        for column in (
            inputs.source,
            inputs.target,
            inputs.source_segments,
            inputs.target_segments,
        ):
            digest.update(np.asarray(column).astype("<i4").tobytes())
        return {
            "pairs": self.source,
            "count": int(np.asarray(inputs.source_segments).max(axis=1).sum()),
            "rows": inputs.source.shape[0],
            "row_length": inputs.source.shape[1],
            "sha256": digest.hexdigest(),
        }
