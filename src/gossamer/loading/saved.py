"""Our own folders: models that `save` or a compression wrote."""

import functools
import hashlib
import uuid
from pathlib import Path

import jax
import numpy as np

from gossamer.data import ImageProcessing, Tokenizer
from gossamer.data.images import PREPROCESSOR
from gossamer.data.json_files import parse_json
from gossamer.data.tokenizers import TOKENIZER_FILES
from gossamer.loading.checkpoint import (
    Checkpoint,
    Tensor,
    check_processing,
    check_sizes,
    check_tensors,
    parts,
)
from gossamer.models import config_from_hf, parameter_shapes
from gossamer.packing import FolderWriter, Packed, PackedFolder, shard_name
from gossamer.packing.writer import DESCRIPTION
from gossamer.weights import Weight


def is_saved(folder: str | Path) -> bool:
    """Whether a folder is one of ours."""
    return (Path(folder) / DESCRIPTION).is_file()


def load_saved(folder: str | Path) -> Checkpoint:
    """Opens a folder of ours; each tensor's checksum is verified when it is first read.

    Raises:
        ValueError: a file is missing or damaged, the layout is of a later version, or the tensors
            are not those of the config.
    """
    folder = Path(folder)
    where = f"Saved model {folder}"
    packed = PackedFolder(folder)
    hf_config = parse_json(folder / "config.json", packed.read_file("config.json"))
    config = config_from_hf(hf_config)
    stored = {path: tensor.shape for path, tensor in packed.tensors.items()}
    check_sizes(where, config, stored.values())
    shapes = parameter_shapes(config)
    check_tensors(where, shapes, stored)
    for name in TOKENIZER_FILES:
        if name in packed.description["files"]:
            packed.read_file(name)  # raises where the checksum does not match
    return Checkpoint(
        config=config,
        tensors={
            path: Tensor(
                packed.tensors[path].shape,
                packed.tensors[path].dtype,
                functools.partial(packed.read, path),
                packed.tensors[path].bits is not None,
            )
            for path in shapes
        },
        tokenizer=Tokenizer.from_folder(folder),
        source={
            "name": folder.resolve().name,
            "format": "gossamer",
            # It holds the checksums of all else.
            "description_sha256": hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest(),
        },
        hf_config=hf_config,
        recipe=packed.description.get("recipe"),
        image_processing=check_processing(where, config, _image_processing(folder, packed)),
    )


def _image_processing(folder: Path, packed: PackedFolder) -> ImageProcessing | None:
    if PREPROCESSOR not in packed.description["files"]:
        return None
    path = folder / PREPROCESSOR
    data = parse_json(path, packed.read_file(PREPROCESSOR))  # its checksum is verified
    return ImageProcessing.from_hf(data, where=str(path))


def save(checkpoint: Checkpoint, folder: str | Path, overwrite: bool = False) -> None:
    """Writes a model, dense or packed, as a folder of ours, one part of it in memory at a time.

    Args:
        checkpoint: what `load` or a compression gives.
        folder: where to; a failed run leaves what was there.
        overwrite: whether a saved model that is there already is replaced.

    Raises:
        ValueError: the folder exists and is not to be replaced; a weight is neither packed nor a
            plain array, or holds NaN or Inf.
    """
    # A name of its own: what an interrupted `save` of unknown weights left cannot be trusted.
    writer = FolderWriter(Path(folder), job=f"save {uuid.uuid4()}", overwrite=overwrite)
    groups = parts(checkpoint.paths)
    for number, paths in enumerate(groups, start=1):
        tensors = {path: _storable(path, checkpoint.read(path)) for path in paths}
        writer.add_shard(shard_name(number, len(groups)), tensors)
    for name, content in checkpoint.side_files().items():
        writer.add_file(name, content)
    writer.finish({"recipe": checkpoint.recipe, "provenance": dict(checkpoint.source)})


def _storable(path: str, weight: np.ndarray | Weight) -> Packed | np.ndarray:
    if isinstance(weight, Packed):
        return weight
    if not isinstance(weight, np.ndarray | jax.Array):
        raise ValueError(
            f"{path} {weight.shape} is a {type(weight).__name__}, which has no layout on disk; "
            "save packed weights or plain arrays."
        )
    if not np.isfinite(array := np.asarray(weight)).all():
        raise ValueError(f"Weight {path} {array.shape} holds NaN or Inf; it is not saved.")
    return array
