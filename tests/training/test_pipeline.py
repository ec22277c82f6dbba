import numpy as np
import pytest

from gossamer.data import Tokenizer
from gossamer.training import Batches, DataConfig, TextCorpus, Windows, read_corpus
from tests.training.runs import corpus, run

TOKENS = np.arange(101, dtype=np.int32)


def batches(**changes):
    return Batches(Windows(TOKENS, 5), **({"batch": 4, "seed": 1} | changes))


def test_an_epoch_predicts_every_token_once_and_the_next_in_another_order():
    made = batches()
    first, second = ([next(made) for _ in range(5)] for _ in range(2))
    for epoch in (first, second):
        predicted = np.concatenate(epoch)[:, 1:]
        assert sorted(predicted.ravel()) == list(range(1, 101))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], next(batches(seed=2)))


def test_a_position_is_gone_back_to():
    made = batches()
    for _ in range(3):
        next(made)
    position, wanted = made.get_state(), next(made)
    again = batches()
    again.set_state(position)
    np.testing.assert_array_equal(next(again), wanted)


def test_processes_share_the_windows_of_every_batch():
    alone, parts = batches(), [batches(process=p, processes=2) for p in range(2)]
    for _ in range(7):
        shared = np.concatenate([next(part) for part in parts])
        np.testing.assert_array_equal(np.sort(shared, axis=0), np.sort(next(alone), axis=0))
    with pytest.raises(ValueError, match="A batch of 4 does not divide among 3 processes"):
        batches(process=0, processes=3)


def test_bytes_are_what_the_tokenizer_gives(tmp_path):
    text = "héllo\n\tdef f(x):  return '€'\x00\r\n" * 20
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    read = read_corpus(DataConfig(text=str(file), held_out=0.1))
    tokens = np.concatenate([read.learned, read.held_out])
    assert list(tokens) == Tokenizer.of_bytes().encode(text)
    assert Tokenizer.of_bytes().decode(tokens.tolist()) == text
    assert len(read.held_out) == int(len(tokens) * 0.1)
    with pytest.raises(ValueError, match=r"no tokenizer.json in .*; name a model's folder"):
        read_corpus(DataConfig(text=str(file), tokenizer=str(tmp_path)))


def test_a_text_that_is_too_short_is_refused():
    short = TextCorpus(learned=TOKENS[:10], held_out=TOKENS[:3], tokenizer=corpus().tokenizer)
    with pytest.raises(ValueError, match=r"learn from has 10 tokens, .* of 17; .*held out has 3"):
        short.check(run())
