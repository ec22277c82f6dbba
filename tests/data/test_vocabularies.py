import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from gossamer.data.vocabularies import Vocabulary, byte_level_bpe, sentencepiece_bpe

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # GPT-2's letters for the 256 bytes
MERGES = ["l l", "ll o", "Ġ w", "1 2", "12 3", "123 4", "3 4", "h e"]
BPE = Vocabulary(
    tokens=["<|end|>", *LETTERS, *(merge.replace(" ", "") for merge in MERGES), "hello", "@@"],
    special=frozenset({0}),
    literal=frozenset({len(LETTERS) + len(MERGES) + 2}),
)
PIECES = {"▁": -5.0, "a": -9.0, "b": -9.5, "ab": -1.0, "▁a": -2.0, "▁ab": -3.0, "ba": -0.5}
SPM = Vocabulary(
    tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES],
    special=frozenset({0, 1, 2}),
    bos_id=1,
)
SCORES = [0.0] * 259 + list(PIECES.values())


def spell(vocabulary, tokenizer, text, **options):
    return [vocabulary.tokens[i] for i in tokenizer.encode(text, **options).ids]


@pytest.mark.parametrize(
    ("pre", "want"),
    [
        ("gpt-2", ["he", "llo", "Ġw", "Ġ", "1234"]),
        ("default", ["he", "llo", "Ġw", "Ġ", "1234"]),
        ("smollm", ["he", "llo", "Ġw", "Ġ", "1", "2", "3", "4"]),  # every digit by itself
        ("llama-bpe", ["hello", "Ġw", "Ġ", "123", "4"]),  # three digits; a known word stays whole
        ("llama3", ["hello", "Ġw", "Ġ", "123", "4"]),
        ("llama-v3", ["hello", "Ġw", "Ġ", "123", "4"]),
    ],
)
def test_words_are_cut_as_the_pre_tokenizer_says(pre, want):
    assert spell(BPE, byte_level_bpe(BPE, MERGES, pre), "hello w 1234") == want


def test_special_tokens_are_found_in_text_and_hidden_when_decoding():
    tokenizer = byte_level_bpe(BPE, MERGES, "gpt-2")
    assert spell(BPE, tokenizer, "h<|end|>@@h") == ["h", "<|end|>", "@@", "h"]
    ids = tokenizer.encode("h<|end|>@@h").ids
    assert tokenizer.decode(ids) == "h@@h"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "h<|end|>@@h"


def test_sentencepiece_merges_the_highest_score_first():
    tokenizer = sentencepiece_bpe(SPM, SCORES)
    # "▁aba": "ba" (-0.5) goes before "ab" (-1.0) and "▁a" (-2.0), and leaves "▁a".
    assert spell(SPM, tokenizer, "aba", add_special_tokens=False) == ["▁a", "ba"]
    assert spell(SPM, tokenizer, "ab", add_special_tokens=False) == ["▁ab"]


def test_sentencepiece_spells_unknown_characters_as_bytes():
    tokenizer = sentencepiece_bpe(SPM, SCORES)
    want = ["<s>", "▁a", "<0xC3>", "<0xA9>", "▁", "<0x0A>"]
    assert spell(SPM, tokenizer, "aé \n") == want
    assert tokenizer.decode(tokenizer.encode("aé \n").ids) == "aé \n"


def test_sentencepiece_without_a_space_prefix_starts_with_the_text():
    tokenizer = sentencepiece_bpe(SPM, SCORES, space_prefix=False)
    assert spell(SPM, tokenizer, "ab", add_special_tokens=False) == ["ab"]
    assert tokenizer.decode(tokenizer.encode(" ab").ids) == " ab"


def test_bos_and_eos_stand_around_the_text_where_asked_for():
    around = Vocabulary(tokens=SPM.tokens, special=SPM.special, bos_id=1, eos_id=2)
    tokenizer = sentencepiece_bpe(around, SCORES)
    assert spell(around, tokenizer, "ab") == ["<s>", "▁ab", "</s>"]
    assert spell(around, tokenizer, "ab", add_special_tokens=False) == ["▁ab"]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
@settings(deadline=None)
@given(text=st.text())
def test_byte_level_tokens_give_back_any_text(pre, text):
    tokenizer = byte_level_bpe(BPE, MERGES, pre)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("space_prefix", [True, False])
@settings(deadline=None)
@given(text=st.text())
def test_sentencepiece_tokens_give_back_any_text(space_prefix, text):
    text = text.replace("▁", " ")  # the one character that cannot be told from a space
    tokenizer = sentencepiece_bpe(SPM, SCORES, space_prefix=space_prefix)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary(tokens=["a", "b", "a"]), r"1 tokens occur twice, such as \['a'\]"),
        (lambda: Vocabulary(tokens=["a"], bos_id=1), r"ids \[1\] are outside its 1 tokens"),
        (lambda: Vocabulary(tokens=["a"], special=frozenset({-1})), r"ids \[-1\] are outside"),
        (lambda: byte_level_bpe(BPE, MERGES, "qwen9"), "'qwen9' is not supported; these are: def"),
        (lambda: byte_level_bpe(BPE, ["l x"], "gpt-2"), "merge 'l' \\+ 'x' is not made of"),
        (lambda: byte_level_bpe(BPE, ["lx"], "gpt-2"), "merge 'lx' \\+ '' is not made of"),
        (lambda: sentencepiece_bpe(SPM, SCORES[1:]), "266 tokens have 265 scores"),
        (
            lambda: sentencepiece_bpe(Vocabulary(tokens=["a"]), [0.0]),
            re.escape("256 byte tokens are missing, such as <0x00>"),
        ),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
