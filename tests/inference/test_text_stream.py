import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.data import Tokenizer
from gossamer.inference.text_stream import TextStream

SENTENCEPIECE = Tokenizer.from_gguf(
    {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(256)),
            *("▁", "a", "▁a", "b", "é"),
        ],
        "tokenizer.ggml.scores": [0.0] * 259 + [-2.0, -3.0, -1.0, -4.0, -5.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 5,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
)
TEXT = st.text(st.sampled_from("helo é€😀\n") | st.characters(codec="utf-8"), max_size=20)


def pieces(stream, tokens):
    """What each token gives, and what is left at the end."""
    given = []
    for token in tokens:
        given.append(stream.push(token))
        if stream.stopped:
            break
    return [*given, stream.finish()]


def test_pieces_are_words_as_they_come(tokenizer):
    tokens = tokenizer.encode("hello hell")
    assert pieces(TextStream(tokenizer), tokens) == ["hello", " ", "hell", ""]


def test_a_character_comes_whole(tokenizer):
    tokens = tokenizer.encode("a😀b")
    assert len(tokens) == 6
    assert pieces(TextStream(tokenizer), tokens) == ["a", "", "", "", "😀", "b", ""]


def test_a_character_may_start_in_the_prompt(tokenizer):
    tokens = tokenizer.encode("h€")
    assert pieces(TextStream(tokenizer, tokens[:2]), tokens[2:]) == ["", "€", ""]


def test_a_broken_character_of_the_prompt_is_not_given_again(tokenizer):
    tokens = tokenizer.encode("h€")[:-1]
    assert pieces(TextStream(tokenizer, tokens), tokenizer.encode("hell")) == ["hell", ""]
    replaced = tokenizer.encode("h\ufffd")
    assert pieces(TextStream(tokenizer, replaced), tokenizer.encode("hell")) == ["hell", ""]


def test_a_character_that_is_cut_off_is_marked_at_the_end(tokenizer):
    tokens = tokenizer.encode("a€")[:-1]
    assert pieces(TextStream(tokenizer), tokens) == ["a", "", "", "\ufffd"]


def test_bytes_that_are_no_character_are_marked_once_that_is_certain(tokenizer):
    euro = tokenizer.encode("€")
    tokens = [*euro[:2], *tokenizer.encode("a")]
    assert pieces(TextStream(tokenizer), tokens) == ["", "", "\ufffda", ""]


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
@settings(deadline=None)
@given(data=st.data())
def test_pieces_add_up_to_the_text_wherever_the_prompt_ends(kind, tokenizer, data):
    tokenizer = SENTENCEPIECE if kind == "sentencepiece" else tokenizer
    text = data.draw(TEXT.filter(lambda text: "\ufffd" not in text))
    tokens = tokenizer.encode(text)
    cut = data.draw(st.integers(0, len(tokens)))
    got = pieces(TextStream(tokenizer, tokens[:cut]), tokens[cut:])
    before = tokenizer.decode(tokens[:cut]).rstrip("\ufffd")
    assert before + "".join(got) == tokenizer.decode(tokens)
    assert not any("\ufffd" in piece for piece in got)


def test_the_first_word_after_bos_has_no_space_and_the_next_has():
    bos, word = 1, SENTENCEPIECE.encode("a")[0]
    assert pieces(TextStream(SENTENCEPIECE, [bos]), [word, word]) == ["a", " a", ""]
    assert pieces(TextStream(SENTENCEPIECE, [bos, word]), [word, word]) == [" a", " a", ""]


def test_special_tokens_give_no_text(tokenizer):
    hello = tokenizer.encode("hello")
    assert pieces(TextStream(tokenizer), [*hello, 0, *hello]) == ["hello", "", "hello", ""]


def test_a_stop_string_ends_the_text_within_a_token(tokenizer):
    stream = TextStream(tokenizer, stop=["ll"])
    assert pieces(stream, tokenizer.encode("a hello a")) == ["a", " ", "he", ""]
    assert stream.stopped


def test_a_stop_string_may_span_tokens_and_what_may_start_one_is_held_back(tokenizer):
    stream = TextStream(tokenizer, stop=["o!?"])
    tokens = tokenizer.encode("hello!a hello!?")
    assert pieces(stream, tokens) == ["hell", "", "o!a", " ", "hell", "", "", ""]
    assert stream.stopped


def test_the_earliest_of_several_stop_strings_wins(tokenizer):
    stream = TextStream(tokenizer, stop=["o", "ell"])
    assert "".join(pieces(stream, tokenizer.encode("hello"))) == "h"


def test_text_that_only_looked_like_a_stop_string_comes_at_the_end(tokenizer):
    stream = TextStream(tokenizer, stop=["o!"])
    assert pieces(stream, tokenizer.encode("hello")) == ["hell", "o"]
    assert not stream.stopped


@settings(deadline=None)
@given(text=st.text("helo", max_size=15), stops=st.lists(st.text("helo", min_size=1, max_size=4)))
def test_the_text_is_what_stands_before_the_stop_string_that_is_complete_first(
    tokenizer, text, stops
):
    until = [text[:end] for end in range(len(text) + 1)]
    stopped = next((t for t in until if any(stop in t for stop in stops)), text)
    want = min([stopped[: stopped.find(s)] for s in stops if s in stopped], key=len, default=text)
    stream = TextStream(tokenizer, stop=stops)
    # Letter by letter, so that every stop string spans tokens.
    letters = [token for letter in text for token in tokenizer.encode(letter)]
    assert "".join(pieces(stream, letters)) == want
    assert stream.stopped == any(stop in text for stop in stops)


def test_a_stop_string_in_the_prompt_stops_nothing(tokenizer):
    tokens = tokenizer.encode("hello hello")
    assert "".join(pieces(TextStream(tokenizer, tokens[:1], ["hello h"]), tokens[1:])) == " hello"


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"at least one character, got \['a', ''\]"):
        TextStream(tokenizer, stop=["a", ""])
