"""Writes a saved model's folder, shard by shard, so that an interrupted run can go on."""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gossamer import __version__
from gossamer.packing.files import (
    SafetensorsFile,
    replacing,
    sha256,
    sha256_file,
    sync_folder,
    write_safetensors,
)
from gossamer.packing.packed import Packed
from gossamer.packing.stored import PLANES, Plane, StoredTensor, check_name, describe, parse

LAYOUT_VERSION = 1
"""Version of the bytes of `docs/packed-layout.md` and of the fields of `gossamer.json`."""

DESCRIPTION = "gossamer.json"
INDEX = "model.safetensors.index.json"
_JOURNAL = "journal.json"
_RESERVED = (DESCRIPTION, INDEX, _JOURNAL)
_OWN_FIELDS = ("layout_version", "gossamer", "tensors", "files")


def shard_name(number: int, count: int) -> str:
    """The name of shard `number` of `count`, as other libraries write it.

    Example:
        >>> shard_name(1, 12)
        'model-00001-of-00012.safetensors'
    """
    return f"model-{number:05d}-of-{count:05d}.safetensors"


class FolderWriter:
    """Writes a folder beside its place and moves it there when it is complete.

    The work is done in `<out>.partial`. A shard that `add_shard` has written survives a crash: a
    later writer for the same job finds it in `shards()`. The same calls give the same bytes,
    interrupted or not. An old folder is whole until the new one takes its place; both names
    `<out>.partial` and `<out>.replaced` belong to the writer.

    Args:
        out: the folder to make.
        job: all that decides the result, for instance a hash of recipe and source; the remains of
            another job are deleted.
        overwrite: whether a saved model that is there already is replaced.

    Raises:
        ValueError: `out` exists and is not to be replaced, or is no saved model.
    """

    def __init__(self, out: pathlib.Path, *, job: str, overwrite: bool = False):
        self.out = out = pathlib.Path(os.path.abspath(out))
        self.partial = out.with_name(out.name + ".partial")
        self._replaced = out.with_name(out.name + ".replaced")
        if self._replaced.exists() and not out.exists():
            os.rename(self._replaced, out)  # a crash between the two renames of `finish`
        _check_free(out, overwrite)
        self._job = job
        self._files: dict[str, str] = {}
        self._shards = self._resume()
        self._write_journal()

    def shards(self) -> dict[str, Any]:
        """The complete shards, of this run or an interrupted one, and the note of each."""
        return {name: record["note"] for name, record in self._shards.items()}

    def add_shard(
        self, name: str, tensors: Mapping[str, Packed | jax.Array | np.ndarray], note: Any = None
    ) -> None:
        """Writes one file of tensors; when it returns, a crash cannot lose it.

        Args:
            name: the file's name, see `shard_name`; a shard of this name is replaced.
            tensors: packed or plain tensors by path.
            note: plain data to keep until `finish`, for whoever resumes.

        Raises:
            ValueError: a bad name, or a path that another shard has.
            OSError: the file cannot be written, for instance on a full disk.
        """
        self._check_shard(name, tensors)
        planes, entries = {}, {}
        for path, weight in tensors.items():
            weight = weight if isinstance(weight, Packed) else np.asarray(weight)
            named = _planes(weight)
            places = {plane: Plane(name, sha256(array)) for plane, array in named.items()}
            stored = describe(path, weight, places)
            entries[path] = stored.to_json()
            planes |= {stored.tensor_name(plane): array for plane, array in named.items()}
        digest = write_safetensors(self.partial / name, planes, {"format": "pt"})
        size = (self.partial / name).stat().st_size
        self._shards[name] = {"size": size, "sha256": digest, "tensors": entries, "note": note}
        self._write_journal()

    def read_shard(self, name: str) -> dict[str, Packed | np.ndarray]:
        """The tensors of a complete shard, through a memory map."""
        files = {name: SafetensorsFile(self.partial / name)}
        return {tensor.path: tensor.build(tensor.views(files)) for tensor in self._tensors(name)}

    def add_file(self, name: str, data: bytes) -> None:
        """Writes a file that is not of tensors, such as `config.json`.

        Raises:
            ValueError: a bad or reserved name.
        """
        if name in _RESERVED or name.endswith(".safetensors"):
            raise ValueError(f"The file name {name!r} is reserved for the writer; choose another.")
        self._write(check_name(name), data)

    def finish(self, fields: Mapping[str, Any]) -> None:
        """Writes index and `gossamer.json`, and moves the folder to its place.

        Args:
            fields: what `gossamer.json` says besides tensors and files: recipe, provenance.
        """
        if taken := [name for name in fields if name in _OWN_FIELDS]:
            raise ValueError(f"The fields {taken} of {DESCRIPTION} are written by the writer.")
        tensors = [tensor for name in self._shards for tensor in self._tensors(name)]
        total = sum(tensor.account().nbytes for tensor in tensors)
        places = weight_map(tensors)
        self._write(INDEX, _json({"metadata": {"total_size": total}, "weight_map": places}))
        shards = {name: record["sha256"] for name, record in self._shards.items()}
        entries = {
            path: entry
            for record in self._shards.values()
            for path, entry in record["tensors"].items()
        }
        description = {
            **fields,
            "layout_version": LAYOUT_VERSION,
            "gossamer": __version__,
            "tensors": entries,
            "files": {**self._files, **shards},
        }
        self._write(DESCRIPTION, _json(description))
        self._place()
        # Last of all: until the folder is in its place, the journal is what saves the work.
        (self.out / _JOURNAL).unlink()

    def _place(self) -> None:
        if self._replaced.exists():
            shutil.rmtree(self._replaced)
        if self.out.exists():
            os.rename(self.out, self._replaced)
        try:
            os.rename(self.partial, self.out)
        except OSError:
            if self._replaced.exists():
                os.rename(self._replaced, self.out)
            raise
        sync_folder(self.out.parent)
        if self._replaced.exists():
            shutil.rmtree(self._replaced)

    def _check_shard(self, name: str, tensors: Mapping[str, Any]) -> None:
        if not check_name(name).endswith(".safetensors"):
            raise ValueError(f"A shard's name ends in .safetensors, got {name!r}.")
        for other, record in self._shards.items():
            if other != name and (twice := sorted(set(tensors) & set(record["tensors"]))):
                raise ValueError(f"Tensors {twice[:3]} of shard {name} are in {other} already.")

    def _tensors(self, shard: str) -> Iterator[StoredTensor]:
        for path, entry in self._shards[shard]["tensors"].items():
            tensor = parse(path, entry)
            assert isinstance(tensor, StoredTensor), tensor
            yield tensor

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.partial / name) as file:
            file.write(data)
        self._files[name] = hashlib.sha256(data).hexdigest()

    def _write_journal(self) -> None:
        with replacing(self.partial / _JOURNAL) as file:
            file.write(_json({"job": self._job, "shards": self._shards}))

    def _resume(self) -> dict[str, dict[str, Any]]:
        """Keeps the shards that an interrupted run of this job completed; deletes all else."""
        shards: dict[str, dict[str, Any]] = {}
        if self.partial.exists():
            _check_ours(self.partial)
            shards = _read_journal(self.partial / _JOURNAL, self._job)
        self.partial.mkdir(parents=True, exist_ok=True)
        whole = {name: shard for name, shard in shards.items() if self._is_whole(name, shard)}
        for file in self.partial.iterdir():
            if file.name not in whole and file.name != _JOURNAL:
                file.unlink()
        return whole

    def _is_whole(self, name: str, record: Mapping[str, Any]) -> bool:
        file = self.partial / name
        if not file.is_file() or file.stat().st_size != record["size"]:
            return False
        return sha256_file(file) == record["sha256"]


def weight_map(tensors: list[StoredTensor]) -> dict[str, str]:
    """The index: in which file each plane is."""
    return {
        tensor.tensor_name(name): plane.file
        for tensor in tensors
        for name, plane in tensor.planes.items()
    }


def _planes(weight: Packed | np.ndarray) -> dict[str, np.ndarray]:
    if not isinstance(weight, Packed):
        return {"values": weight}
    planes = {name: getattr(weight, name) for name in PLANES}
    return {name: np.asarray(plane) for name, plane in planes.items() if plane is not None}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _read_journal(journal: pathlib.Path, job: str) -> dict[str, dict[str, Any]]:
    """The shards that a journal of this job records."""
    try:
        record = json.loads(journal.read_bytes())
        return record["shards"] if record["job"] == job else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _check_free(out: pathlib.Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise ValueError(f"The output folder {out} exists; choose another, or allow overwriting.")
    if not out.is_dir() or (any(out.iterdir()) and not (out / DESCRIPTION).is_file()):
        raise ValueError(
            f"{out} exists and is no saved model of ours (it has no {DESCRIPTION}), so it is not "
            "overwritten; delete it yourself or choose another folder."
        )


def _check_ours(partial: pathlib.Path) -> None:
    names = {file.name for file in partial.iterdir() if not file.name.endswith(".tmp")}
    if names and _JOURNAL not in names:
        raise ValueError(
            f"{partial} holds files but no {_JOURNAL}, so it is no unfinished work of ours; move "
            "it away."
        )
