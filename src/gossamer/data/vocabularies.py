"""Builds tokenizers of two families from bare vocabularies, for formats that hold no more."""

import collections
import dataclasses
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors as post_processors

WORD_START = "▁"
"""What SentencePiece writes for a space."""

GPT2 = frozenset({"default", "gpt-2"})
DIGITS_THEN_GPT2 = frozenset({"smollm"})
LLAMA3 = frozenset({"llama-bpe", "llama-v3", "llama3"})
"""Names that GGUF gives to ways of cutting text into words; within a set they mean the same."""

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of a vocabulary file, a token's id being its place.

    Attributes:
        tokens: the texts, all different.
        special: ids of control tokens; text that spells one gives that token, decoding hides it.
        literal: ids of tokens that text gives wherever it spells them, but that decoding shows.
        bos_id: the token that starts a text when special tokens are asked for; None adds none.
        eos_id: the same for its end.
    """

    tokens: Sequence[str]
    special: frozenset[int] = frozenset()
    literal: frozenset[int] = frozenset()
    bos_id: int | None = None
    eos_id: int | None = None

    def __post_init__(self) -> None:
        counts = collections.Counter(self.tokens)
        if twice := [token for token, count in counts.items() if count > 1]:
            raise ValueError(f"Tokenizer: {len(twice)} tokens occur twice, such as {twice[:3]}.")
        around = [index for index in (self.bos_id, self.eos_id) if index is not None]
        ids = sorted({*self.special, *self.literal, *around})
        if outside := [index for index in ids if not 0 <= index < len(self.tokens)]:
            raise ValueError(
                f"Tokenizer: special token ids {outside[:3]} are outside its {len(self.tokens)} "
                "tokens."
            )


def byte_level_bpe(vocabulary: Vocabulary, merges: Sequence[str], pre: str) -> Tokenizer:
    """A GPT-2-like tokenizer: bytes as letters, merged in the order of `merges`.

    Args:
        vocabulary: tokens in GPT-2's byte alphabet.
        merges: pairs "left right".
        pre: how text is cut into words before merging; GGUF's `tokenizer.ggml.pre`.

    Raises:
        ValueError: `pre` is unknown, or a merge is not made of tokens.

    Source: the cuts are those of llama.cpp (`llama-vocab.cpp`) and of the Hugging Face tokenizers
    of the models that go by these names.
    """
    tokenizer = _bpe(
        vocabulary,
        [_pair(merge) for merge in merges],
        ignore_merges=pre in LLAMA3,  # a word that is a token is taken whole, however it merges
    )
    tokenizer.pre_tokenizer = _cut_words(pre)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special_tokens(tokenizer, vocabulary)


def byte_letters() -> list[str]:
    """The letter that GPT-2 writes for each byte: itself where it prints, else one from 256 on.

    Example:
        >>> byte_letters()[65], byte_letters()[10]
        ('A', 'Ċ')

    Source: `bytes_to_unicode` of GPT-2's released code.
    """
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in prints else next(others)) for byte in range(256)]


def _cut_words(pre: str) -> pre_tokenizers.PreTokenizer:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in GPT2:
        return gpt2
    if pre in DIGITS_THEN_GPT2:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, gpt2])
    if pre in LLAMA3:
        words = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), behavior="isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([words, letters])
    known = sorted(GPT2 | DIGITS_THEN_GPT2 | LLAMA3)
    raise ValueError(f"Pre-tokenizer {pre!r} is not supported; these are: {', '.join(known)}.")


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def sentencepiece_bpe(
    vocabulary: Vocabulary, scores: Sequence[float], *, space_prefix: bool = True
) -> Tokenizer:
    """A Llama-2-like tokenizer: characters merged by score, unknown ones as bytes `<0x..>`.

    SentencePiece merges the neighbours whose union has the highest score. Written as a list of
    merges this is every way to split a token in two tokens, ordered by the token's score.

    Args:
        vocabulary: tokens with `▁` for a space.
        scores: one for each token.
        space_prefix: whether a text starts with a space, as SentencePiece's dummy prefix.

    Raises:
        ValueError: not one score a token, or byte tokens are missing.

    Source: llama.cpp (`llm_tokenizer_spm`) and the conversion of Hugging Face transformers
    (`SentencePieceExtractor`).
    """
    tokens = vocabulary.tokens
    if len(scores) != len(tokens):
        raise ValueError(f"Tokenizer: {len(tokens)} tokens have {len(scores)} scores.")
    if missing := {f"<0x{byte:02X}>" for byte in range(256)}.difference(tokens):
        raise ValueError(
            f"Tokenizer: {len(missing)} byte tokens are missing, such as {min(missing)}; only "
            "SentencePiece vocabularies with byte fallback are supported."
        )
    tokenizer = _bpe(vocabulary, _merges_by_score(tokens, scores), byte_fallback=True)
    prefix = [normalizers.Prepend(WORD_START)] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", WORD_START)])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(WORD_START, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if space_prefix else []),
        ]
    )
    return _with_special_tokens(tokenizer, vocabulary)


def _merges_by_score(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    ids = {token: index for index, token in enumerate(tokens)}
    found = [
        (-scores[index], ids[token[:cut]], ids[token[cut:]])
        for token, index in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [(tokens[left], tokens[right]) for _, left, right in sorted(found)]


def _bpe(
    vocabulary: Vocabulary,
    merges: list[tuple[str, str]],
    *,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> Tokenizer:
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    for left, right in merges:
        if not (left in ids and right in ids and left + right in ids):
            raise ValueError(
                f"Tokenizer: merge {left!r} + {right!r} is not made of the vocabulary's tokens."
            )
    return Tokenizer(
        models.BPE(
            vocab=ids,
            merges=merges,
            byte_fallback=byte_fallback,
            ignore_merges=ignore_merges,
        )
    )


def _with_special_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    tokens = vocabulary.tokens
    for index in sorted(vocabulary.special | vocabulary.literal):
        special = index in vocabulary.special
        tokenizer.add_tokens([AddedToken(tokens[index], normalized=False, special=special)])
    before, after = (
        [] if index is None else [(tokens[index], index)]
        for index in (vocabulary.bos_id, vocabulary.eos_id)
    )
    if before or after:
        around = [token for token, _ in before], [token for token, _ in after]
        tokenizer.post_processor = post_processors.TemplateProcessing(
            single=[*around[0], "$A", *around[1]],
            pair=[*around[0], "$A", *around[1], *around[0], "$B:1", *around[1]],
            special_tokens=[*before, *after],
        )
    return tokenizer
