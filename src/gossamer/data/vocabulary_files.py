"""Reads the vocabularies inside GGUF and llama2.c files and rebuilds their tokenizers."""

import struct
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from gossamer.data.vocabularies import (
    LLAMA3,
    WORD_START,
    Vocabulary,
    byte_level_bpe,
    sentencepiece_bpe,
)


def read_llama2c(path: Path) -> tuple[list[str], list[float]]:
    """Reads llama2.c's `tokenizer.bin`: tokens and their scores.

    Layout, little-endian: int32 bytes of the longest token; then, for each token, float32 score,
    int32 bytes, UTF-8.

    Raises:
        ValueError: the file is cut short or is not such a file.
    """
    data = path.read_bytes()
    tokens: list[str] = []
    scores: list[float] = []
    at = 4
    longest = int.from_bytes(data[:4], "little", signed=True)
    while at < len(data) or not tokens:
        if at + 8 > len(data):
            raise ValueError(f"Tokenizer {path} is cut short in token {len(tokens)}.")
        score, size = struct.unpack_from("<fi", data, at)
        # Tokens 1 and 2 are written "\n<s>\n" and "\n</s>\n", which the longest does not count.
        if not 0 <= size <= max(longest, 8):
            raise ValueError(
                f"Tokenizer {path}: token {len(tokens)} claims {size} bytes, the longest has "
                f"{longest}; this is no tokenizer of llama2.c."
            )
        at += 8 + size
        if at > len(data):
            raise ValueError(f"Tokenizer {path} is cut short in token {len(tokens)}.")
        try:
            text = data[at - size : at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"Tokenizer {path}: token {len(tokens)} is not UTF-8.") from error
        tokens.append(text)
        scores.append(score)
    return tokens, scores


def from_llama2c(path: Path) -> tuple[Tokenizer, Vocabulary]:
    """The SentencePiece tokenizer that llama2.c's `tokenizer.bin` was exported from."""
    tokens, scores = read_llama2c(path)
    if len(tokens) < 259:
        raise ValueError(
            f"Tokenizer {path} has {len(tokens)} tokens; one of llama2.c has 3 control and 256 "
            "byte tokens before the others."
        )
    pieces = [token.replace(" ", WORD_START) for token in tokens]
    pieces[:3] = ["<unk>", "<s>", "</s>"]
    vocabulary = Vocabulary(tokens=pieces, special=frozenset({0, 1, 2}), bos_id=1)
    return sentencepiece_bpe(vocabulary, scores), vocabulary


_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # token types of GGUF; 1 normal, 5 unused, 6 byte


def from_gguf(metadata: Mapping[str, object]) -> tuple[Tokenizer, Vocabulary]:
    """The tokenizer that the keys `tokenizer.ggml.*` of a GGUF file describe.

    Raises:
        ValueError: a key is missing or has another type, or the kind of tokenizer is not known.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"GGUF tokenizer.ggml.model is {kind!r}; 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece BPE) are supported."
        )
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    types = _numbers(metadata, "tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(types) != len(tokens):
        raise ValueError(f"GGUF tokenizer: {len(tokens)} tokens have {len(types)} token types.")
    spm = kind == "llama"
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    hidden = {_CONTROL, _UNKNOWN}
    vocabulary = Vocabulary(
        tokens=tokens,
        special=frozenset(index for index, kind in enumerate(types) if kind in hidden),
        literal=frozenset(index for index, kind in enumerate(types) if kind == _USER_DEFINED),
        bos_id=_added(metadata, "bos", default=spm or pre in LLAMA3),
        eos_id=_added(metadata, "eos", default=False),
    )
    if spm:
        scores = [float(score) for score in _numbers(metadata, "tokenizer.ggml.scores")]
        prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
        return sentencepiece_bpe(vocabulary, scores, space_prefix=prefix), vocabulary
    merges = _strings(metadata, "tokenizer.ggml.merges")
    return byte_level_bpe(vocabulary, merges, pre), vocabulary


def _added(metadata: Mapping[str, object], name: str, *, default: bool) -> int | None:
    """The id of the token that is put around each text, or None where none is."""
    wanted = metadata.get(f"tokenizer.ggml.add_{name}_token", default)
    index = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return index if wanted and isinstance(index, int) else None


def _strings(metadata: Mapping[str, object], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ValueError(f"GGUF key {key} must be a list of strings, got {str(value)[:40]}.")
    return value


def _numbers(metadata: Mapping[str, object], key: str) -> list[int | float]:
    value = metadata.get(key, [])
    if not isinstance(value, list) or (value and not isinstance(value[0], int | float)):
        raise ValueError(f"GGUF key {key} must be a list of numbers, got {str(value)[:40]}.")
    return value
