import numpy as np
import pytest

from gossamer.loading.identity import sample_sha256


@pytest.fixture(params=[0, 1, 100_000, 20_000_000], ids=["empty", "byte", "small", "large"])
def content(request):
    return np.random.default_rng(0).bytes(request.param)


def test_equal_files_are_equal_whatever_their_names(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    assert sample_sha256([tmp_path / "a"]) == sample_sha256([tmp_path / "b"])


def test_ends_length_and_a_change_everywhere_are_seen(tmp_path, content):
    values = np.frombuffer(content, np.uint8)
    others = [content + b"\0"]
    if content:
        others += [(values ^ 1).tobytes() + b"\0"]
        others += [bytes([content[0] ^ 1]) + content[1:], content[:-1] + bytes([content[-1] ^ 1])]
    seen = set()
    for index, data in enumerate([content, *others]):
        (tmp_path / str(index)).write_bytes(data)
        seen.add(sample_sha256([tmp_path / str(index)]))
    assert len(seen) == 1 + len(others) - (len(content) == 1)  # one byte is both ends


def test_every_byte_of_a_small_file_counts(tmp_path):
    content = bytearray(200_000)
    (tmp_path / "a").write_bytes(content)
    content[123_457] = 1
    (tmp_path / "b").write_bytes(content)
    assert sample_sha256([tmp_path / "a"]) != sample_sha256([tmp_path / "b"])


def test_where_one_file_ends_and_the_next_starts_counts(tmp_path):
    for name, data in {"a": b"xy", "b": b"z", "c": b"x", "d": b"yz"}.items():
        (tmp_path / name).write_bytes(data)
    first, second = (sample_sha256([tmp_path / name for name in pair]) for pair in ("ab", "cd"))
    assert first != second
