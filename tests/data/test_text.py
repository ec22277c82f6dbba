import gzip
import lzma

import numpy as np
import pytest

from gossamer.data import builtin_text, read_text, sequences, windows

TEXT = "Grüße\r\nan alle\n"


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress)],
)
def test_a_text_is_read_unchanged_whatever_compresses_it(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(TEXT.encode()))
    assert read_text(tmp_path / name) == TEXT


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "Grüße".encode("latin-1"), r"a.txt is not UTF-8 \(byte 2 is 0xfc\)"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.gz", gzip.compress(b"abc" * 99, mtime=0)[:-9], "a.gz cannot be read"),
        ("a.xz", lzma.compress(b"abc" * 99)[:-9], "a.xz cannot be read"),
        ("a.xz", b"plain", "a.xz cannot be read"),
        ("a.gz", b"plain", "a.gz cannot be read"),
    ],
)
def test_an_unreadable_text_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / name)


def test_a_missing_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.txt cannot be read"):
        read_text(tmp_path / "nowhere.txt")


def test_windows_lie_side_by_side_from_the_start():
    got = windows(list(range(10)), length=3, count=2)
    np.testing.assert_array_equal(got, [[0, 1, 2], [3, 4, 5]])
    assert got.dtype == np.int32


def test_windows_without_a_count_are_all_that_fit():
    np.testing.assert_array_equal(windows(list(range(7)), 2, None), [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("count", [0, 4])
def test_more_windows_than_fit_are_refused(count):
    with pytest.raises(ValueError, match=f"10 tokens holds 1 to 3 windows of 3, got {count}"):
        windows(list(range(10)), length=3, count=count)


def test_sequences_are_pieces_of_the_text_and_repeat_with_the_seed():
    ids = list(range(100, 200))
    got = sequences(ids, length=8, count=50, seed=3)
    assert got.shape == (50, 8)
    assert got.dtype == np.int32
    assert all(ids[row[0] - 100 :][:8] == row.tolist() for row in got)
    np.testing.assert_array_equal(got, sequences(ids, length=8, count=50, seed=3))
    assert (got != sequences(ids, length=8, count=50, seed=4)).any()


def test_sequences_reach_both_ends_of_the_text():
    starts = sequences(list(range(10)), length=8, count=100, seed=0)[:, 0]
    assert set(starts.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("cut", [windows, lambda ids, length, count: sequences(ids, length, 1, 0)])
def test_a_text_shorter_than_one_sequence_is_refused(cut):
    with pytest.raises(ValueError, match="text has 5 tokens, shorter than one sequence of 6"):
        cut([1, 2, 3, 4, 5], 6, 1)


def test_sequences_and_windows_of_no_token_are_refused():
    with pytest.raises(ValueError, match="at least 1 token, got a length of 0"):
        windows([1, 2], 0, 1)
    with pytest.raises(ValueError, match="at least 1 sequence, got 0"):
        sequences([1, 2], 1, 0, seed=0)


def test_the_builtin_parts_are_long_and_share_no_paragraph():
    calibration, evaluation = builtin_text("calibration"), builtin_text("evaluation")
    # Enough for 64 sequences of 512 tokens and 8 windows of 1024 at 4 to 5 characters a token.
    assert min(len(calibration), len(evaluation)) > 150_000
    parts = [
        {" ".join(paragraph.split()) for paragraph in text.split("\n\n")}
        for text in (calibration, evaluation)
    ]
    assert parts[0] & parts[1] == set()
    assert calibration == builtin_text("calibration")
