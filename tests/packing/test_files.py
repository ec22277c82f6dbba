import errno
import json
import os
import pathlib
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gossamer.packing import SafetensorsFile, write_safetensors
from gossamer.packing import files as files_module
from gossamer.packing.files import DTYPES, sha256, sha256_file

TENSORS = {
    "a.values": np.arange(7, dtype=np.uint8),
    "a.scales": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    "empty": np.zeros((0, 4), np.int32),
    "scalar": np.array(2.5, np.float64),
    "last": np.arange(100, dtype=np.int16),
}


def header(entries: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file's bytes; `length` is what it claims of its header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, dtype: str = "U8", shape: object = None) -> dict:
    shape = [end - start] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "model.safetensors"


def test_tensors_come_back_equal_and_in_order(path):
    digest = write_safetensors(path, TENSORS, {"format": "pt"})
    file = SafetensorsFile(path)
    assert file.names == list(TENSORS)
    assert file.metadata == {"format": "pt"}
    assert (file.nbytes, digest) == (path.stat().st_size, sha256_file(path))
    for name, array in TENSORS.items():
        assert (file.shape(name), file.dtype(name)) == (array.shape, array.dtype)
        np.testing.assert_array_equal(file.read(name), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(path, dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    write_safetensors(path, {"x": array})
    np.testing.assert_array_equal(SafetensorsFile(path).read("x"), array)


def test_every_tensor_starts_at_a_multiple_of_64_and_is_not_copied(path):
    write_safetensors(path, TENSORS)
    file = SafetensorsFile(path)
    assert [name for name in TENSORS if file.offset(name) % 64] == []
    view = file.read("last")
    assert not view.flags.writeable
    device = jax.device_put(view, jax.devices("cpu")[0])
    assert device.unsafe_buffer_pointer() == view.ctypes.data


def test_the_safetensors_library_reads_our_files_and_we_read_its(path, tmp_path):
    write_safetensors(path, TENSORS)
    read = load_file(path)
    assert set(TENSORS) <= set(read)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(read[name], array)
    save_file(TENSORS, tmp_path / "theirs.safetensors")
    theirs = SafetensorsFile(tmp_path / "theirs.safetensors")
    assert set(theirs.names) == set(TENSORS)
    np.testing.assert_array_equal(theirs.read("a.scales"), TENSORS["a.scales"])


def test_the_safetensors_library_reads_bfloat16_and_the_alignment(path):
    write_safetensors(path, {"odd": np.zeros(3, np.uint8), "b": np.ones(5, ml_dtypes.bfloat16)})
    with safe_open(path, framework="np") as file:
        assert file.get_slice("b").get_dtype() == "BF16"
        assert set(file.keys()) == {"odd", "b", "_padding_1"}
        assert not file.get_tensor("_padding_1").any()


def test_the_same_tensors_give_the_same_bytes(path, tmp_path):
    write_safetensors(path, TENSORS, {"format": "pt"})
    other = tmp_path / "other.safetensors"
    write_safetensors(other, TENSORS, {"format": "pt"})
    assert path.read_bytes() == other.read_bytes()


def test_checksums_do_not_depend_on_how_an_array_lies_in_memory():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert sha256(array) == sha256(np.asfortranarray(array))
    assert sha256(array) != sha256(array.T)


BAD = {
    "nothing": (b"", "cut off: 0 bytes"),
    "half_a_length": (b"\x00\x00", "cut off: 2 bytes"),
    "header_beyond_the_file": (header({}, length=99), "cut off: its header ends at byte 107 of 10"),
    "absurd_header": (header({}, length=2**63), "claims a header of 9223372036854775808 bytes"),
    "header_over_the_limit": (header({}, length=100_000_001), "the limit is 100000000"),
    "no_json": (header(b"nonsense"), "not valid JSON"),
    "no_utf8": (header(b'{"\xff": 1}'), "not valid JSON"),
    "deep_json": (header(b"[" * 200_000), "not valid JSON"),
    "no_object": (header([]), "no JSON object"),
    "twice": (header(b'{"a": 1, "a": 2}'), "a name occurs twice"),
    "metadata": (header({"__metadata__": {"a": 1}}), "metadata .* are not texts"),
    "lacks_fields": (header({"a": {"dtype": "U8"}}), "'a' needs dtype, shape and data_offsets"),
    "unknown_dtype": (header({"a": entry(0, 1, "Q9")}, b"x"), "'a' has an unknown dtype 'Q9'"),
    "negative_shape": (header({"a": entry(0, 1, shape=[-1])}, b"x"), r"has shape \[-1\]"),
    "bool_shape": (header({"a": entry(0, 1, shape=[True])}, b"x"), r"has shape \[True\]"),
    "huge_shape": (
        header({"a": entry(0, 1, shape=[2**62, 2**62])}, b"x"),
        "has 1 bytes from 0 to 1",
    ),
    "shape_of_another_size": (
        header({"a": entry(0, 6, "F32", [2])}, b"x" * 6),
        "has 6 bytes .* F32",
    ),
    "backwards": (header({"a": entry(4, 2, shape=[2])}, b"x" * 4), "has -2 bytes from 4 to 2"),
    "outside": (header({"a": entry(0, 9)}, b"x" * 8), "'a' .* lies outside the file: .* 9 of 8"),
    "overlap": (
        header({"a": entry(0, 4), "b": entry(2, 6)}, b"x" * 6),
        "'b' .* overlaps tensor 'a': it starts at byte 2, not 4",
    ),
    "hole": (
        header({"a": entry(0, 2), "b": entry(4, 6)}, b"x" * 6),
        "leaves a hole after tensor 'a'",
    ),
    "late": (header({"a": entry(2, 4)}, b"x" * 4), "leaves a hole after the header"),
    "too_long": (
        header({"a": entry(0, 2)}, b"x" * 5),
        "5 bytes of data, but its tensors end at byte 2",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_refuses(path, data, message):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as raised:
        SafetensorsFile(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_off_anywhere_is_refused(path, fraction):
    write_safetensors(path, TENSORS)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(ValueError, match="cut off"):
        SafetensorsFile(path)


def test_a_tensor_that_is_not_there_is_named(path):
    write_safetensors(path, TENSORS)
    with pytest.raises(ValueError, match=r"no tensor 'b'; it has names like \['a.values'"):
        SafetensorsFile(path).read("b")


@pytest.mark.parametrize("name", ["_padding_3", "__metadata__"])
def test_reserved_names_are_refused(path, name):
    with pytest.raises(ValueError, match=f"{name}' is reserved"):
        write_safetensors(path, {name: np.zeros(1)})


def test_a_dtype_that_the_format_lacks_is_refused(path):
    with pytest.raises(ValueError, match=r"Tensor x \(2,\) has dtype complex128"):
        write_safetensors(path, {"x": np.zeros(2, np.complex128)})


def test_a_full_disk_leaves_the_old_file_whole(path, monkeypatch):
    write_safetensors(path, TENSORS)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, {"x": np.zeros(1000)})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_device_that_takes_nothing_is_reported(path):
    path.with_name(path.name + ".tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, TENSORS)
    assert list(path.parent.iterdir()) == []
