"""Walks the header of a GGUF file, trusting none of its numbers: every claim is held against the
bytes that are there before anything is read or allocated for it.

Layout, little-endian: magic "GGUF", uint32 version, uint64 tensors, uint64 keys; the keys (name,
uint32 type, value); the tensors' names, shapes, types and offsets; then, from the next multiple of
`general.alignment` on, their bytes. A string is uint64 bytes and UTF-8, an array uint32 element
type, uint64 elements and these.

Source: the specification in `docs/gguf.md` of ggml, versions 2 and 3.
"""

import dataclasses
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

Value: TypeAlias = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_SMALLEST_KEY = 8 + 1 + 4 + 1  # bytes: the length of its name, a letter, its type, a value
_SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
_DEFAULT_ALIGNMENT = 32
_MOST_DIMENSIONS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        shape: outermost axis first, as numpy has it; the file lists the axes the other way round.
        kind: how its numbers are stored.
        start: offset of its first byte in the file.
        size: bytes.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        metadata: the keys' values.
        tensors: name -> where it lies.
    """

    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]


def read_header(data: np.ndarray, path: Path) -> Header:
    """Reads and checks the header of the GGUF file whose bytes are `data`.

    Args:
        data: all bytes of the file, best a memory map.
        path: the file's name, for errors.

    Raises:
        ValueError: this is no GGUF file that can be read, it is cut short, or it claims what
            cannot be.
    """
    cursor = _Cursor(data, path)
    if cursor.take(4, "its magic") != b"GGUF":
        raise ValueError(f"{path} is no GGUF file: it does not start with 'GGUF'.")
    version = cursor.number("<u4", "its version")
    if version not in (2, 3):
        raise ValueError(
            f"{path} is a GGUF file of version {version}; versions 2 and 3, little-endian, are "
            "supported."
        )
    tensor_count = cursor.count(_SMALLEST_TENSOR, "tensors")
    key_count = cursor.count(_SMALLEST_KEY, "keys")
    metadata = _collect(cursor, (_key(cursor) for _ in range(key_count)), "key")
    places = _collect(cursor, (_place(cursor) for _ in range(tensor_count)), "tensor")
    alignment = _alignment(cursor, metadata)
    start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: _tensor(cursor, name, shape, kind, start, offset)
        for name, (shape, kind, offset) in places.items()
    }
    if odd := [name for name, (_, _, offset) in places.items() if offset % alignment]:
        raise ValueError(
            f"GGUF file {path} is damaged: the offsets of {odd[:3]} are no multiples of its "
            f"alignment of {alignment} bytes."
        )
    return Header(metadata=metadata, tensors=tensors)


class _Cursor:
    """Reads forward through the header and never past the end."""

    def __init__(self, data: np.ndarray, path: Path) -> None:
        self.data = data.data
        self.path = path
        self.at = 0

    def take(self, size: int, what: str) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise ValueError(
                f"GGUF file {self.path} is cut short or damaged: {what} at byte {self.at} needs "
                f"{size} bytes, the file ends at {len(self.data)}; fetch it again."
            )
        taken = bytes(self.data[self.at : end])
        self.at = end
        return taken

    def number(self, dtype: str, what: str) -> int:
        return int(np.frombuffer(self.take(np.dtype(dtype).itemsize, what), dtype)[0])

    def count(self, smallest: int, what: str) -> int:
        """A number of things that take at least `smallest` bytes each."""
        count = self.number("<u8", f"the number of {what}")
        if count * smallest > len(self.data) - self.at:
            raise ValueError(
                f"GGUF file {self.path} is cut short or damaged: it claims {count} {what}, which "
                f"the {len(self.data) - self.at} bytes behind byte {self.at} cannot hold."
            )
        return count

    def strings(self, count: int, what: str) -> list[str]:
        """Texts one after the other; vocabularies have 100,000s of them."""
        texts, view, end = [], self.data, len(self.data)
        for index in range(count):
            start = self.at + 8
            stop = start + int.from_bytes(view[self.at : start], "little")
            if start > end or stop > end:
                self.string(f"string {index} of {what}")  # says what is wrong
            self.at = stop
            texts.append(bytes(view[start:stop]))
        try:
            return [text.decode("utf-8") for text in texts]
        except UnicodeDecodeError as error:
            raise ValueError(f"GGUF file {self.path}: {what} is not UTF-8.") from error

    def string(self, what: str) -> str:
        raw = self.take(self.count(1, f"bytes of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"GGUF file {self.path}: {what} is not UTF-8.") from error


def _collect(cursor: _Cursor, pairs: Iterable[tuple[str, object]], what: str) -> dict:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"GGUF file {cursor.path} has {what} {name!r} twice.")
        found[name] = value
    return found


def _key(cursor: _Cursor) -> tuple[str, Value]:
    name = cursor.string("the name of a key")
    kind = cursor.number("<u4", f"the type of key {name!r}")
    what = f"key {name!r}"
    if kind == _ARRAY:
        kind = cursor.number("<u4", f"the element type of {what}")
        if kind == _STRING:
            count = cursor.count(8, f"strings in {what}")
            return name, cursor.strings(count, what)
        dtype = _scalar(cursor, kind, f"the elements of {what}")
        count = cursor.count(dtype.itemsize, f"numbers in {what}")
        return name, np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype).tolist()
    if kind == _STRING:
        return name, cursor.string(what)
    dtype = _scalar(cursor, kind, what)
    return name, np.frombuffer(cursor.take(dtype.itemsize, what), dtype).tolist()[0]


def _scalar(cursor: _Cursor, kind: int, what: str) -> np.dtype:
    if kind not in _SCALARS:
        raise ValueError(f"GGUF file {cursor.path}: {what} has type {kind}, which is not known.")
    return np.dtype(_SCALARS[kind])


def _place(cursor: _Cursor) -> tuple[str, tuple[tuple[int, ...], int, int]]:
    """A tensor's name, and its shape, type and offset as the file gives them."""
    name = cursor.string("the name of a tensor")
    what = f"the place of tensor {name!r}"
    dimensions = cursor.number("<u4", what)
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(
            f"GGUF file {cursor.path}: tensor {name!r} claims {dimensions} axes; the format has "
            f"at most {_MOST_DIMENSIONS}."
        )
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions, what))
    kind = cursor.number("<u4", what)
    return name, (shape[::-1], kind, cursor.number("<u8", what))


def _alignment(cursor: _Cursor, metadata: dict[str, Value]) -> int:
    """Bytes whose multiples tensors start at."""
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise ValueError(
            f"GGUF file {cursor.path}: general.alignment is {alignment!r}, it must be a power of "
            "two from 8 on."
        )
    return alignment


def _tensor(
    cursor: _Cursor, name: str, shape: tuple[int, ...], kind: int, start: int, offset: int
) -> TensorInfo:
    """Checks that a tensor can be where the file says it is."""
    what = f"GGUF file {cursor.path}: tensor {name!r} {shape}"
    try:
        known = GGMLQuantizationType(kind)
    except ValueError as error:
        raise ValueError(
            f"{what} has type {kind}, which the gguf package does not know."
        ) from error
    block, block_bytes = GGML_QUANT_SIZES[known]
    if shape and shape[-1] % block:
        raise ValueError(f"{what} has rows that are no multiple of the {block} of a {known.name}.")
    size = math.prod(shape) // block * block_bytes
    if start + offset + size > len(cursor.data):
        raise ValueError(
            f"{what} ({known.name}) lies at bytes {start + offset} to {start + offset + size}, "
            f"the file ends at {len(cursor.data)}: it is cut short or damaged; fetch it again."
        )
    return TensorInfo(shape=shape, kind=known, start=start + offset, size=size)
