import lzma

import pytest

from gossamer.data import Pair, Tokenizer, read_pairs, split_pairs


def written(tmp_path, text, name="pairs.tsv"):
    file = tmp_path / name
    file.write_bytes(lzma.compress(text.encode()) if name.endswith("xz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.tsv.xz"])
def test_pairs_are_the_first_two_columns_without_spaces_around_them(tmp_path, name):
    text = "Hi. \tHallo.\tCC-BY 2.0\n\n Go\u2028on.\tMach weiter.\r\n"
    assert read_pairs(written(tmp_path, text, name)) == [
        Pair("Hi.", "Hallo."),
        Pair("Go\u2028on.", "Mach weiter."),
    ]


def test_lines_of_one_column_are_named(tmp_path):
    text = "a\tb\nalone\n\tb\na\t \nx\ty\n" + "z\n" * 3
    message = r"not so line 2 \('alone'\), line 3 \('b'\), line 4 \('a'\) and 3 more\."
    with pytest.raises(ValueError, match=message):
        read_pairs(written(tmp_path, text))


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("\n \n", "there is none")])
def test_a_file_without_pairs_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"pairs\.tsv.*{message}"):
        read_pairs(written(tmp_path, text))


def test_all_translations_of_a_source_are_in_one_part_whatever_the_order():
    pairs = [Pair(f"sentence {i // 2}", f"Satz {i}") for i in range(2000)]
    learned, held_out = split_pairs(pairs, 0.1)
    assert not {pair.source for pair in learned} & {pair.source for pair in held_out}
    assert 60 < len({pair.source for pair in held_out}) < 140  # binomial, 1000 times 0.1: 4 sigma
    again, others = split_pairs([*pairs[::-1], Pair("one more", "noch einer")], 0.1)
    assert set(learned) < {*again, *others}
    assert set(held_out) <= set(others)


def test_a_learned_tokenizer_gives_every_text_back_and_is_the_same_each_time():
    texts = ["Größe ist nicht alles.", "Size is not everything.", "alles ist nichts"]
    tokenizer = Tokenizer.trained(texts, 280)
    assert tokenizer.vocab_size == 280
    assert tokenizer.eos_ids == {1}
    for text in (*texts, "日本語 \t x", "</"):
        assert tokenizer.decode(tokenizer.encode(text)).strip() == text
    assert tokenizer.encode("alles", add_special=True) == [*tokenizer.encode("alles"), 1]
    assert tokenizer.backend.to_str() == Tokenizer.trained(iter(texts), 280).backend.to_str()
    assert tokenizer.encode_all(texts) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(ValueError, match="needs 258 tokens or more, for all bytes; got 200"):
        Tokenizer.trained(texts, 200)
