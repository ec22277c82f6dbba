"""Reads a saved model's folder: checked when it is opened, verified when a tensor is read."""

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gossamer.packing.account import Account
from gossamer.packing.files import SafetensorsFile, sha256
from gossamer.packing.packed import Packed
from gossamer.packing.stored import StoredTensor, check_name, parse
from gossamer.packing.writer import DESCRIPTION, INDEX, LAYOUT_VERSION, weight_map
from gossamer.quantization.scales import scale_from_bytes

_MAX_DESCRIPTION_BYTES = 100_000_000


class PackedFolder:
    """A saved model: tensors by path, read through memory maps.

    Attributes:
        path: the folder.
        description: what `gossamer.json` says: recipe, provenance, versions.
        tensors: what is stored, by path.

    Args:
        path: the folder.

    Raises:
        ValueError: no saved model, a layout version from the future, a name that leads out of the
            folder, files that are missing or cut off or do not fit the description. All faults are
            reported together.
    """

    def __init__(self, path: pathlib.Path):
        self.path = pathlib.Path(path)
        self.description = _read_description(self.path)
        faults: list[str] = []
        self.tensors = _parse_tensors(self.description, faults)
        self._files = _open_files(self.path, self._places(), faults)
        for tensor in self.tensors.values():
            faults += _planes_faults(tensor, self._files)
        names = {*self.description["files"], *self._places()}
        faults += [f"the file {name} is missing" for name in sorted(names) if not self._has(name)]
        faults += _index_faults(self.path, list(self.tensors.values()))
        if faults:
            more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
            raise ValueError(f"{self.path} is damaged: " + "; ".join(faults[:10]) + more + ".")
        self._verified: set[str] = set()

    def read(self, path: str) -> Packed | np.ndarray:
        """A tensor by its path; its checksums are verified when it is first read.

        Returns:
            A packed kernel of device arrays, or a read-only array; both are views of the memory
            map where the device is the CPU.

        Raises:
            ValueError: no tensor has this path, a checksum does not match, or NaN or Inf is in it.
        """
        if path not in self.tensors:
            raise ValueError(
                f"{self.path} has no tensor {path!r}; it has names like {list(self.tensors)[:3]}."
            )
        tensor = self.tensors[path]
        views = tensor.views(self._files)
        if path not in self._verified:
            self._verify(tensor, views)
            self._verified.add(path)
        return tensor.build(views)

    def read_file(self, name: str) -> bytes:
        """A file that is not of tensors, its checksum verified.

        Raises:
            ValueError: the folder's description does not list it, or its checksum does not match.
        """
        files = self.description["files"]
        if name not in files:
            raise ValueError(f"{self.path} has no file {name!r}; it has {sorted(files)}.")
        file = self.path / name
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != files[name]:
            raise ValueError(f"The checksum of {file} does not match; fetch the model again.")
        return data

    def accounts(self) -> dict[str, Account]:
        """Where the bits of each tensor go; nothing is read."""
        return {path: tensor.account() for path, tensor in self.tensors.items()}

    def overhead_bytes(self) -> dict[str, int]:
        """Bytes of each file that are no tensor's: headers and alignment, or the whole file.

        With the tensors' accounts they add up to the size of the model's files on disk.
        """
        names = {*self.description["files"], *self._places(), DESCRIPTION}
        rest = {name: (self.path / name).stat().st_size for name in sorted(names)}
        for tensor in self.tensors.values():
            for name, (dtype, shape) in tensor.expected().items():
                rest[tensor.planes[name].file] -= dtype.itemsize * math.prod(shape)
        return rest

    def _has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _places(self) -> set[str]:
        return {plane.file for tensor in self.tensors.values() for plane in tensor.planes.values()}

    def _verify(self, tensor: StoredTensor, views: Mapping[str, np.ndarray]) -> None:
        where = f"of tensor {tensor.path} {tensor.shape} in {self.path}"
        for name, array in views.items():
            if sha256(array) != tensor.planes[name].sha256:
                raise ValueError(
                    f"The checksum of plane {name!r} {where} does not match; fetch the model again."
                )
            values = array
            if name == "scales" and tensor.scale is not None:
                values = scale_from_bytes(jnp.asarray(array), tensor.scale)
            if jnp.issubdtype(values.dtype, jnp.floating) and not bool(jnp.isfinite(values).all()):
                raise ValueError(f"Plane {name!r} {where} holds NaN or Inf.")


def model_bytes(folder: pathlib.Path) -> int:
    """Bytes of all files of a saved model; a report or a plot that lies beside them does not count.

    Raises:
        ValueError: the folder is no saved model.
    """
    names = {*_read_description(folder)["files"], DESCRIPTION}
    return sum((folder / check_name(name)).stat().st_size for name in names)


def _read_description(folder: pathlib.Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ValueError(f"{folder} is no saved model: it has no {DESCRIPTION}.")
    if file.stat().st_size > _MAX_DESCRIPTION_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, which cannot be right.")
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    version = data.get("layout_version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{file} has no layout version; it is no description of a saved model.")
    if version > LAYOUT_VERSION:
        raise ValueError(
            f"{folder} was written with layout version {version} by gossamer "
            f"{data.get('gossamer')}; this one reads up to {LAYOUT_VERSION}. Upgrade gossamer."
        )
    if lacking := [n for n in ("tensors", "files") if not isinstance(data.get(n), dict)]:
        raise ValueError(f"{file} lacks {lacking}.")
    return data


def _parse_tensors(description: Mapping[str, Any], faults: list[str]) -> dict[str, StoredTensor]:
    for name in description["files"]:
        try:
            check_name(name)
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    tensors = {}
    for path, entry in description["tensors"].items():
        tensor = parse(path, entry)
        if isinstance(tensor, str):
            faults.append(tensor)
        else:
            tensors[path] = tensor
    return tensors


def _open_files(
    folder: pathlib.Path, names: set[str], faults: list[str]
) -> dict[str, SafetensorsFile]:
    files = {}
    for name in sorted(names):
        try:
            files[name] = SafetensorsFile(folder / name)
        except FileNotFoundError:
            pass  # reported with the other missing files
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    return files


def _planes_faults(tensor: StoredTensor, files: Mapping[str, SafetensorsFile]) -> list[str]:
    """What in the files' headers does not fit the description of a tensor."""
    faults = []
    for name, (dtype, shape) in tensor.expected().items():
        file = files.get(tensor.planes[name].file)
        stored = tensor.tensor_name(name)
        if file is None:
            continue
        if stored not in file.names:
            faults.append(f"{file.path.name} has no tensor {stored!r}")
        elif (file.dtype(stored), file.shape(stored)) != (dtype, shape):
            faults.append(
                f"plane {stored!r} is {file.dtype(stored)} {file.shape(stored)}, a kernel "
                f"{tensor.shape} needs {dtype} {shape}"
            )
    return faults


def _index_faults(folder: pathlib.Path, tensors: list[StoredTensor]) -> list[str]:
    """What other libraries would read by the index must be what we read."""
    file = folder / INDEX
    try:
        places = json.loads(file.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{INDEX} cannot be read ({type(error).__name__}: {error})"]
    want = weight_map(tensors)
    if places == want:
        return []
    names = sorted(set(want) ^ set(places)) or [n for n in want if places[n] != want[n]]
    return [f"{INDEX} and {DESCRIPTION} differ on {names[:3]}"]
