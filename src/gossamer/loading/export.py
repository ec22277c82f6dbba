"""Writes any model as a dense Hugging Face folder, so that other libraries can run and check it."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np

from gossamer.loading.checkpoint import Checkpoint
from gossamer.loading.huggingface import INDEX, WHOLE, to_stored
from gossamer.models import hf_key
from gossamer.packing import shard_name, write_safetensors
from gossamer.packing.files import replacing, sync_folder
from gossamer.weights import materialize

Precision: TypeAlias = Literal["float32", "bfloat16"]
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

MOST_BYTES = 2 << 30
"""Tensors that are in memory at once and in one file; a larger model is written in several."""


def export_dense(
    checkpoint: Checkpoint,
    folder: str | Path,
    dtype: Precision = "float32",
    overwrite: bool = False,
) -> None:
    """Writes the values that a model's weights stand for, under the names and in the orientation
    of Hugging Face.

    In float32 `transformers` computes the same function; bfloat16 rounds every weight.

    Args:
        checkpoint: dense or packed.
        folder: where to; it appears when it is complete.
        dtype: of the weights.
        overwrite: whether a model folder that is there already is replaced.

    Raises:
        ValueError: the folder exists and is not to be replaced, or is no model folder; the dtype
            is unknown.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"Dense weights are exported in {list(_DTYPES)}, got dtype {dtype!r}.")
    with _replacing_folder(Path(folder), overwrite=overwrite) as work:
        _write_weights(checkpoint, work, _DTYPES[dtype])
        config = {**checkpoint.hf_config, "torch_dtype": dtype}
        # Newer configs name it "dtype"; transformers reads both, and the old name everywhere.
        config.pop("dtype", None)
        files = {**checkpoint.side_files(), "config.json": _json(config)}
        for name, content in files.items():
            _write(work / name, content)


def _write_weights(checkpoint: Checkpoint, work: Path, dtype: np.dtype) -> None:
    shards = _shards(checkpoint, dtype.itemsize)
    places: dict[str, str] = {}
    for number, paths in enumerate(shards, start=1):
        name = WHOLE if len(shards) == 1 else shard_name(number, len(shards))
        tensors = {
            hf_key(checkpoint.config, path): _dense(checkpoint, path, dtype) for path in paths
        }
        # No padding: transformers would take it for weights that the model does not know.
        write_safetensors(work / name, tensors, {"format": "pt"}, alignment=1)
        places |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        sizes = [math.prod(tensor.shape) for tensor in checkpoint.tensors.values()]
        index = {"metadata": {"total_size": sum(sizes) * dtype.itemsize}, "weight_map": places}
        _write(work / INDEX, _json(index))


def _shards(checkpoint: Checkpoint, itemsize: int) -> list[list[str]]:
    """Cuts the parameters, in order, in lists of at most `MOST_BYTES`, or of one larger one."""
    shards: list[list[str]] = []
    room = 0
    for path, tensor in checkpoint.tensors.items():
        size = math.prod(tensor.shape) * itemsize
        if size > room or not shards:
            shards.append([])
            room = MOST_BYTES
        shards[-1].append(path)
        room -= size
    return shards


def _dense(checkpoint: Checkpoint, path: str, dtype: np.dtype) -> np.ndarray:
    weight = checkpoint.read(path)
    values = weight if isinstance(weight, np.ndarray) else np.asarray(materialize(weight))
    return np.ascontiguousarray(to_stored(checkpoint.config, path, values), dtype)


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def _replacing_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to work in, which takes the place of `folder` when all went well, else vanishes."""
    if os.path.lexists(folder):
        if not overwrite:
            raise ValueError(
                f"The output folder {folder} exists; choose another, or allow overwriting."
            )
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "config.json").exists()):
            raise ValueError(
                f"{folder} exists and is no model folder (it has no config.json), so it is not "
                "overwritten; delete it yourself or choose another folder."
            )
    work = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    old = folder.with_name(f"{folder.name}.replaced-{os.getpid()}")
    work.mkdir(parents=True)
    try:
        yield work
        sync_folder(work)
        _exchange(work, folder, old)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(work: Path, folder: Path, old: Path) -> None:
    """Puts `work` in the place of `folder`, and what was there to `old`."""
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(work, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    sync_folder(folder.parent)
