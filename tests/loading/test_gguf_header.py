import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.loading.gguf_files import load_gguf
from gossamer.loading.gguf_header import read_header


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def header(*, tensors=0, keys=0, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, keys)


def tensor(name="t", shape=(4,), kind=0, offset=0):
    shape = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + shape + struct.pack("<IQ", kind, offset)


def read(data, tmp_path):
    return read_header(np.frombuffer(data, np.uint8), tmp_path / "a.gguf")


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    return llama.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


@pytest.fixture(scope="module")
def header_size(whole):
    tensors = read_header(np.frombuffer(whole, np.uint8), Path("a.gguf")).tensors
    return min(place.start for place in tensors.values())


def test_keys_and_places_are_read(tmp_path):
    keys = (
        string("a") + struct.pack("<Ii", 5, -3),
        string("b") + struct.pack("<I", 8) + string("text"),
        string("c") + struct.pack("<IIQ", 9, 8, 2) + string("x") + string("yz"),
        string("d") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 1.5),
        string("e") + struct.pack("<I?", 7, True),
    )
    data = header(tensors=1, keys=5) + b"".join(keys) + tensor(shape=(3, 2))
    start = -(-len(data) // 32) * 32
    found = read(data.ljust(start + 24, b"\0"), tmp_path)
    assert found.metadata == {"a": -3, "b": "text", "c": ["x", "yz"], "d": [0.5, 1.5], "e": True}
    place = found.tensors["t"]
    assert (place.shape, place.start, place.size) == ((2, 3), start, 24)


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, whole, header_size):
    cuts = {0, 1, 3, 4, 7, 8, 23, 24, header_size, len(whole) - 64}
    cuts |= set(np.linspace(0, header_size, 60).astype(int).tolist())
    cuts |= set(np.linspace(header_size, len(whole) - 64, 20).astype(int).tolist())
    path = tmp_path / "cut.gguf"
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"cut\.gguf"):
            load_gguf(path)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda whole, size: 20, "claims 21 tensors, which the 4 bytes"),
        (lambda whole, size: whole.index(b"<0xFE>"), "string 257 of key 'tokenizer.ggml.tokens'"),
        (lambda whole, size: size - 40, "bytes of the name of a tensor, which the 19 bytes"),
        (lambda whole, size: len(whole) - 100, r"tensor 'blk.1.ffn_norm.weight' .* lies at bytes"),
    ],
    ids=["counts", "tokens", "places", "last tensor"],
)
def test_the_error_says_what_was_cut(tmp_path, whole, header_size, cut, message):
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: cut(whole, header_size)])
    with pytest.raises(ValueError, match=message):
        load_gguf(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(magic=b"GGML"), "does not start with 'GGUF'"),
        (header(version=1), "version 1; versions 2 and 3"),
        (header(version=3 << 24), "version 50331648"),  # big-endian
        (header(keys=1 << 62), f"claims {1 << 62} keys, which the 0 bytes"),
        (header(tensors=1 << 62), f"claims {1 << 62} tensors, which the 8 bytes"),
        (header(keys=1) + struct.pack("<Q", 1 << 63).ljust(30), "bytes of the name of a key"),
        (
            header(keys=1) + string("a") + struct.pack("<IIQ", 9, 8, 1 << 60),
            f"claims {1 << 60} strings in key 'a'",
        ),
        (
            header(keys=1) + string("a") + struct.pack("<IIQ", 9, 11, 1 << 60),
            f"claims {1 << 60} numbers in key 'a'",
        ),
        (
            header(keys=1) + string("a") + struct.pack("<IIQ", 9, 9, 1),
            "the elements of key 'a' has type 9, which is not known",
        ),
        (header(keys=1) + string("a") + struct.pack("<II", 99, 0), "key 'a' has type 99"),
        (header(keys=1) + struct.pack("<Q", 1) + b"\xff" * 9, "the name of a key is not UTF-8"),
        (
            header(keys=2) + 2 * (string("a") + struct.pack("<II", 4, 0)),
            "has key 'a' twice",
        ),
        (header(tensors=2) + 2 * tensor() + bytes(99), "has tensor 't' twice"),
        (header(tensors=1) + tensor(shape=(1,) * 5), "claims 5 axes; the format has at most 4"),
        (header(tensors=1) + tensor(kind=77), "has type 77, which the gguf package does not know"),
        (header(tensors=1) + tensor(kind=2, shape=(31,)), "no multiple of the 32 of a Q4_0"),
        (
            header(tensors=1) + tensor(shape=(1 << 40, 1 << 40)) + bytes(99),
            "lies at bytes .* the file ends at",
        ),
        (header(tensors=1) + tensor(offset=1 << 63) + bytes(99), "lies at bytes 9223372036854775"),
        (header(tensors=1) + tensor(offset=8) + bytes(99), "no multiples of its alignment of 32"),
    ],
)
def test_headers_that_claim_what_cannot_be_are_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read(data, tmp_path)


@settings(deadline=None, max_examples=200)
@given(place=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_damaged_header_is_refused_or_read_but_never_crashes(
    tmp_path_factory, whole, header_size, place, byte
):
    data = bytearray(whole)
    data[int(place * (header_size - 1))] = byte
    path = tmp_path_factory.mktemp("gguf") / "damaged.gguf"
    path.write_bytes(data)
    try:
        checkpoint = load_gguf(path)
    except ValueError:
        return
    assert {path: checkpoint.read(path).shape for path in checkpoint.paths} == {
        path: tensor.shape for path, tensor in checkpoint.tensors.items()
    }
