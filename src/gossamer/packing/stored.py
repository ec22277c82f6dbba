"""What `gossamer.json` says of a tensor, checked against the planes in the files."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np

from gossamer.packing.account import Account, account_planes
from gossamer.packing.books import code_name
from gossamer.packing.files import DTYPES, SafetensorsFile
from gossamer.packing.groups import GROUP_SIZES, index_bits
from gossamer.packing.layout import LANES, lane_bytes
from gossamer.packing.packed import Packed
from gossamer.quantization import Codebook, Format, Int, ScaleType
from gossamer.quantization.formats import Book
from gossamer.quantization.minifloat import MINIFLOATS
from gossamer.quantization.scales import SCALE_BITS
from gossamer.recipe import format_from_plain, to_plain
from gossamer.sparsity import NM

PlaneName: TypeAlias = Literal["values", "indices", "scales", "zeros", "tensor_scale"]
PLANES: tuple[PlaneName, ...] = get_args(PlaneName)
_SCALE_DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "e8m0": "uint8", "e4m3": "uint8"}
_FLOATS = ("float32", "bfloat16")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def check_name(name: str) -> str:
    """Passes a name of a file that lies directly in a folder.

    Raises:
        ValueError: the name could lead out of the folder, or to a hidden file.

    Example:
        >>> check_name("model-00001-of-00002.safetensors")
        'model-00001-of-00002.safetensors'
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"The file name {name!r} could lead out of the folder; names are letters, digits, "
            "'_', '-' and '.', and start with no '.'."
        )
    return name


@dataclasses.dataclass(frozen=True)
class Plane:
    """Where a plane's bytes are: a tensor of a file, and the SHA-256 of its bytes."""

    file: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor of a saved model: what it is, and where its planes are.

    Attributes:
        path: its name.
        shape: `[in, out]` of a packed kernel, any shape of a plain tensor.
        dtype: what its values are when read, or decoded.
        packed: whether it is packed; the fields that follow are those of `Packed`.
        groups: scales for each output.
        tensor_scale: whether there is one more scale, of the whole tensor.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    planes: Mapping[str, Plane]
    packed: bool = False
    bits: int | None = None
    pattern: NM | None = None
    scale: ScaleType | None = None
    groups: int = 0
    symmetric: bool = True
    activations: Format | None = None
    book: Book | None = None
    tensor_scale: bool = False

    @property
    def padding(self) -> int:
        """Unused lanes of the last tile."""
        return -self.shape[1] % LANES if self.packed else 0

    def describe(self) -> str:
        """What it is in words, for tables."""
        if not self.packed:
            return f"plain {self.dtype}"
        values = str(self.dtype) if self.bits is None else code_name(self.bits, self.book)
        return f"{self.pattern or 'dense'} {values}"

    def tensor_name(self, plane: str) -> str:
        """The name of a plane in its file."""
        return f"{self.path}.{plane}" if self.packed else self.path

    def expected(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Dtype and shape of each plane, as they follow from the rest.

        Raises:
            ValueError: the shape does not divide into groups or whole bytes.
        """
        if not self.packed:
            return {"values": (self.dtype, self.shape)}
        size, out = self.shape
        tiles, kept = -(-out // LANES), size
        octets = np.dtype(np.uint8)
        planes: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        if self.pattern is not None:
            self.pattern.check((size, out), 0)
            kept = size * self.pattern.n // self.pattern.m
            where = index_bits(self.pattern)
            lane = lane_bytes(size, 1) if where is None else lane_bytes(kept, where)
            planes["indices"] = (octets, (tiles, LANES * lane))
        if self.bits is None:
            return {"values": (self.dtype, (tiles, kept, LANES)), **planes}
        planes["values"] = (octets, (tiles, LANES * lane_bytes(kept, self.bits)))
        assert self.scale is not None
        groups = (tiles, self.groups, LANES)
        planes["scales"] = (np.dtype(_SCALE_DTYPES[self.scale]), groups)
        if not self.symmetric:
            planes["zeros"] = (np.dtype(np.int8), groups)
        if self.tensor_scale:
            planes["tensor_scale"] = (np.dtype(np.float32), (1,))
        return planes

    def account(self) -> Account:
        """Where the tensor's bits go, without reading it."""
        sizes = {
            name: dtype.itemsize * math.prod(shape)
            for name, (dtype, shape) in self.expected().items()
        }
        if self.packed:
            return account_planes(self.shape, sizes)
        return Account(weights=math.prod(self.shape), values=8 * sizes["values"])

    def views(self, files: Mapping[str, SafetensorsFile]) -> dict[str, np.ndarray]:
        """The planes as views of the files' memory maps; nothing is copied."""
        return {
            name: files[plane.file].read(self.tensor_name(name))
            for name, plane in self.planes.items()
        }

    def build(self, views: Mapping[str, np.ndarray]) -> Packed | np.ndarray:
        """The tensor of these planes: device arrays in a packed kernel, else the plain array.

        `device_put` takes a view that starts at a multiple of 64 bytes as it is, on the CPU.
        """
        if not self.packed:
            return views["values"]
        planes = {name: jax.device_put(view) for name, view in views.items()}
        return Packed(
            values=planes["values"],
            indices=planes.get("indices"),
            scales=planes.get("scales"),
            zeros=planes.get("zeros"),
            bits=self.bits,
            pattern=self.pattern,
            scale=self.scale,
            padding=self.padding,
            activations=self.activations,
            book=self.book,
            tensor_scale=planes.get("tensor_scale"),
        )

    def to_json(self) -> dict[str, Any]:
        """The tensor's entry in `gossamer.json`."""
        planes = {name: dataclasses.asdict(plane) for name, plane in self.planes.items()}
        entry = {"shape": list(self.shape), "dtype": str(self.dtype), "planes": planes}
        if not self.packed:
            return {"kind": "plain", **entry}
        return {
            "kind": "packed",
            **entry,
            "bits": self.bits,
            "pattern": self.pattern and dataclasses.asdict(self.pattern),
            "scale": self.scale,
            "groups": self.groups,
            "symmetric": self.symmetric,
            "padding": self.padding,
            "activations": self.activations and to_plain(self.activations),
            "book": list(self.book) if isinstance(self.book, tuple) else self.book,
        }


def describe(path: str, weight: Packed | np.ndarray, planes: Mapping[str, Plane]) -> StoredTensor:
    """The entry of a tensor that was written."""
    if not isinstance(weight, Packed):
        return StoredTensor(path=path, shape=weight.shape, dtype=weight.dtype, planes=planes)
    return StoredTensor(
        path=path,
        shape=weight.shape,
        dtype=np.dtype(weight.dtype),
        planes=planes,
        packed=True,
        bits=weight.bits,
        pattern=weight.pattern,
        scale=weight.scale,
        groups=0 if weight.scales is None else weight.scales.shape[-2],
        symmetric=weight.zeros is None,
        activations=weight.activations,
        book=weight.book,
        tensor_scale=weight.tensor_scale is not None,
    )


def parse(path: str, entry: Any) -> StoredTensor | str:
    """Reads an entry of `gossamer.json`, or says in words what is wrong with it."""
    try:
        return _parse(path, entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        return f"tensor {path!r}: {reason}".rstrip(".")


def _parse(path: str, entry: Any) -> StoredTensor:
    kind, dtype = entry["kind"], entry["dtype"]
    shape = tuple(_natural("shape", size) for size in entry["shape"])
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}")
    planes = {name: _plane(name, plane) for name, plane in entry["planes"].items()}
    if kind == "plain":
        stored = StoredTensor(path=path, shape=shape, dtype=np.dtype(dtype), planes=planes)
    elif kind == "packed":
        stored = _parse_packed(path, entry, shape, np.dtype(dtype), planes)
    else:
        raise ValueError(f"is of an unknown kind {kind!r}")
    if set(planes) != set(stored.expected()):
        raise ValueError(f"has planes {sorted(planes)}, needs {sorted(stored.expected())}")
    return stored


def _parse_packed(
    path: str, entry: Any, shape: tuple[int, ...], dtype: np.dtype, planes: Mapping[str, Plane]
) -> StoredTensor:
    bits, scale, pattern = entry["bits"], entry["scale"], entry["pattern"]
    if len(shape) != 2 or not shape[1]:
        raise ValueError(f"a packed kernel has a shape [in, out], got {shape}")
    if bits is not None and (type(bits) is not int or not 2 <= bits <= 8):
        raise ValueError(f"codes have 2 to 8 bits, got {bits!r}")
    if (scale is None) != (bits is None) or (scale is not None and scale not in SCALE_BITS):
        raise ValueError(f"unknown scale {scale!r} for {bits} bits")
    if bits is None and (pattern is None or str(dtype) not in _FLOATS):
        raise ValueError(f"packed floats need a pattern and a dtype in {_FLOATS}, got {dtype}")
    groups = _natural("groups", entry["groups"])
    if bits is not None and (groups < 1 or shape[0] % groups):
        raise ValueError(f"{groups} groups do not divide its shape {shape}")
    symmetric = entry["symmetric"]
    if type(symmetric) is not bool or (pattern is not None and not symmetric):
        raise ValueError(f"symmetric={symmetric!r} does not suit pattern {pattern}")
    stored = StoredTensor(
        path=path,
        shape=shape,
        dtype=dtype,
        planes=planes,
        packed=True,
        bits=bits,
        pattern=None if pattern is None else _pattern(pattern),
        scale=scale,
        groups=groups,
        symmetric=symmetric,
        activations=_activations(entry["activations"]),
        book=_book(entry.get("book"), bits, symmetric),
        tensor_scale="tensor_scale" in planes,
    )
    if entry["padding"] != stored.padding:
        raise ValueError(f"shape {shape} has padding {stored.padding}, got {entry['padding']!r}")
    return stored


def _pattern(fields: Any) -> NM:
    if set(fields) != {"n", "m"}:
        raise ValueError(f"a pattern has n and m, got {fields}")
    pattern = NM(_natural("n", fields["n"]), _natural("m", fields["m"]))
    if pattern.m not in GROUP_SIZES or pattern.n == pattern.m:
        raise ValueError(f"pattern {pattern} has no sparse layout; M is one of {GROUP_SIZES}")
    return pattern


def _activations(fields: Any) -> Format | None:
    """A format; models that were saved when all were integers do not say its type."""
    if fields is None:
        return None
    return format_from_plain(fields) if "type" in fields else Int(**fields)


def _book(values: Any, bits: int | None, symmetric: bool) -> Book | None:
    """A codebook or a float; models that were saved before there were any have none."""
    if values is None:
        return None
    if isinstance(values, str):
        if values not in MINIFLOATS or MINIFLOATS[values].bits != bits or not symmetric:
            raise ValueError(f"float {values!r} does not suit {bits} bits, symmetric={symmetric}")
        return values
    if bits != 4 or not symmetric or any(type(value) is not int for value in values):
        raise ValueError(f"codebook {values!r} does not suit {bits} bits, symmetric={symmetric}")
    return Codebook(tuple(values)).values


def _natural(what: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} needs whole numbers >= 0, got {value!r}")
    return value


def _plane(name: str, fields: Any) -> Plane:
    if name not in PLANES:
        raise ValueError(f"has an unknown plane {name!r}")
    if not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise ValueError(f"plane {name} has a checksum {fields['sha256']!r}")
    return Plane(check_name(fields["file"]), fields["sha256"])
