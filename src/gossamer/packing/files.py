"""Safetensors files: written by rename with every tensor at a multiple of 64 bytes, read by map.

The format: 8 bytes with the header's length, a JSON header, the data. It has no room for holes, so
what aligns a tensor is the header's trailing spaces and explicit tensors `_padding_<n>`. The
`safetensors` library reads these files; the strict reading here is for files from anywhere.

Source: the format's description, https://github.com/huggingface/safetensors.
"""

import dataclasses
import hashlib
import json
import math
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

ALIGNMENT = 64
"""Tensors start at multiples of so many bytes: XLA takes them from a memory map without a copy."""

MAX_HEADER_BYTES = 100_000_000

_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "U16": np.uint16,
        "I16": np.int16,
        "U32": np.uint32,
        "I32": np.int32,
        "U64": np.uint64,
        "I64": np.int64,
        "F16": np.float16,
        "F32": np.float32,
        "F64": np.float64,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
DTYPES = tuple(str(dtype) for dtype in _NAMES)
"""Names of the dtypes that a file can hold."""

_PADDING = re.compile(r"_padding_\d+")


@dataclasses.dataclass(frozen=True)
class _Entry:
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the data
    end: int


@contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the name `path` when it is complete and synced, else vanishes."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_safetensors(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    alignment: int = ALIGNMENT,
) -> str:
    """Writes tensors in their order; the same tensors give the same bytes.

    Args:
        path: the file; an old one stays whole until the new one is complete.
        tensors: arrays by name, of a dtype that safetensors names.
        metadata: free text for the header.
        alignment: bytes whose multiples tensors start at; 1 writes no padding, for libraries that
            take every tensor of a file for a weight.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        ValueError: a name is reserved or a dtype has no name in the format.
        OSError: the file cannot be written, for instance on a full disk.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    pieces: list[np.ndarray] = []
    end = 0

    def add(name: str, array: np.ndarray) -> None:
        nonlocal end
        start, end = end, end + array.nbytes
        shape = list(array.shape)
        header[name] = {"dtype": _NAMES[array.dtype], "shape": shape, "data_offsets": [start, end]}
        pieces.append(array)

    for name, array in tensors.items():
        if name == "__metadata__" or _PADDING.fullmatch(name):
            raise ValueError(f"The tensor name {name!r} is reserved; choose another.")
        if array.dtype not in _NAMES:
            raise ValueError(
                f"Tensor {name} {array.shape} has dtype {array.dtype}, which safetensors lacks; "
                f"it has {[str(dtype) for dtype in _NAMES]}."
            )
        if gap := -end % alignment:
            add(f"_padding_{len(pieces)}", np.zeros(gap, np.uint8))
        add(name, array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    digest = hashlib.sha256()
    with replacing(path) as file:
        for piece in (struct.pack("<Q", len(text)), text, *pieces):
            data = piece if isinstance(piece, bytes) else _octets(piece)
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


def sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in row-major order, in hexadecimal."""
    return hashlib.sha256(_octets(array)).hexdigest()


def sha256_file(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _octets(array: np.ndarray) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data


class SafetensorsFile:
    """The tensors of a safetensors file, read through a memory map when asked for.

    Args:
        path: the file.

    Raises:
        ValueError: the file is cut off, or its header is no header, claims an absurd size, or names
            tensors that overlap, leave holes, lie outside the file or do not fit their shape.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            text, self.data_start = _read_header(path, file, size)
            self.metadata, self._entries = _parse_header(path, text)
            _check_layout(path, self._entries, size - self.data_start)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.nbytes = size

    @property
    def names(self) -> list[str]:
        """The tensors' names in the order of their bytes, without padding."""
        return [name for name in self._entries if not _PADDING.fullmatch(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype."""
        return self._entry(name).dtype

    def offset(self, name: str) -> int:
        """Where in the file a tensor starts, in bytes."""
        return self.data_start + self._entry(name).start

    def read(self, name: str) -> np.ndarray:
        """A read-only view of a tensor in the memory map; nothing is copied."""
        entry = self._entry(name)
        count = math.prod(entry.shape)
        offset = self.data_start + entry.start
        return np.frombuffer(self._map, entry.dtype, count, offset).reshape(entry.shape)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise ValueError(
                f"{self.path} has no tensor {name!r}; it has names like {self.names[:3]}."
            )
        return self._entries[name]


def _read_header(path: pathlib.Path, file: BinaryIO, size: int) -> tuple[bytes, int]:
    if size < 8:
        raise ValueError(f"{path} is cut off: {size} bytes, a safetensors file has at least 8.")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path} claims a header of {length} bytes, the limit is {MAX_HEADER_BYTES}; it is "
            "damaged or no safetensors file."
        )
    if 8 + length > size:
        raise ValueError(
            f"{path} is cut off: its header ends at byte {8 + length} of {size}; fetch it again."
        )
    return file.read(length), 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _parse_header(path: pathlib.Path, text: bytes) -> tuple[dict[str, str], dict[str, _Entry]]:
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The header of {path} is not valid JSON: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"The header of {path} is no JSON object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"The metadata of {path} are not texts: {str(metadata)[:80]}.")
    entries, faults = {}, []
    for name, fields in header.items():
        entry = _parse_entry(fields)
        if isinstance(entry, str):
            faults.append(f"tensor {name!r} {entry}")
        else:
            entries[name] = entry
    if faults:
        raise ValueError(f"The header of {path} is wrong: " + "; ".join(faults[:10]) + ".")
    return metadata, dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))


def _parse_entry(fields: Any) -> _Entry | str:
    """A tensor's entry, or in words what is wrong with it."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        return f"needs dtype, shape and data_offsets, got {str(fields)[:80]}"
    name, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(name, str) or name not in _DTYPES:
        return f"has an unknown dtype {name!r}"
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        return f"has shape {str(shape)[:80]} and offsets {str(offsets)[:80]}"
    dtype, (start, end) = _DTYPES[name], offsets
    if end - start != math.prod(shape) * dtype.itemsize:
        return f"has {end - start} bytes from {start} to {end}, but is {name} of shape {shape}"
    return _Entry(dtype, tuple(shape), start, end)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_layout(path: pathlib.Path, entries: Mapping[str, _Entry], size: int) -> None:
    """Tensors, in order, cover the data without overlap or hole, and end where the file ends."""
    end, before = 0, "the header"
    for name, entry in entries.items():
        if entry.end > size:
            raise ValueError(
                f"Tensor {name!r} of {path} lies outside the file: it ends at byte {entry.end} of "
                f"{size} bytes of data; the file is cut off or damaged."
            )
        if entry.start != end:
            kind = "overlaps" if entry.start < end else "leaves a hole after"
            raise ValueError(
                f"Tensor {name!r} of {path} {kind} {before}: it starts at byte {entry.start}, not "
                f"{end}."
            )
        end, before = entry.end, f"tensor {name!r}"
    if end != size:
        raise ValueError(f"{path} has {size} bytes of data, but its tensors end at byte {end}.")
