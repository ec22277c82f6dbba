"""Model folders in the Hugging Face manner: config.json, safetensors, tokenizer.json."""

import functools
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import ml_dtypes
import numpy as np

from gossamer.data import ImageProcessing, Tokenizer
from gossamer.data.json_files import read_json
from gossamer.loading.checkpoint import (
    Checkpoint,
    Tensor,
    check_processing,
    check_sizes,
    check_tensors,
)
from gossamer.loading.identity import sample_sha256
from gossamer.models import (
    ModelConfig,
    T5Config,
    ViTConfig,
    config_from_hf,
    hf_key,
    hf_shape,
    parameter_shapes,
)
from gossamer.packing import SafetensorsFile

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = [np.dtype(kind) for kind in ("float32", "float16", "float64", ml_dtypes.bfloat16)]


def load_huggingface(folder: str | Path) -> Checkpoint:
    """Opens a folder; headers are read, and each tensor when it is asked for, as float32.

    Args:
        folder: holds `config.json` and `model.safetensors`, or the shards that
            `model.safetensors.index.json` lists; `tokenizer.json` if there is one, or for a vision
            model `preprocessor_config.json`.

    Raises:
        ValueError: a file is missing or damaged, the model's family is not supported, or the
            tensors are not those of the config; all of them are named.
    """
    folder = Path(folder)
    where = f"Model folder {folder}"
    hf_config = read_json(folder / "config.json")
    config = config_from_hf(hf_config)
    files = open_shards(folder)
    homes = {name: file for file in files for name in file.names}
    if _is_untied(config, homes):
        hf_config = {**hf_config, "tie_word_embeddings": False}
        hf_config["scale_decoder_outputs"] = config.to_hf()["scale_decoder_outputs"]
        config = config_from_hf(hf_config)
    stored = {name: homes[name].shape(name) for name in homes if not _is_spare(name, config)}
    check_sizes(where, config, stored.values())
    shapes = parameter_shapes(config)
    wanted = {hf_key(config, path): hf_shape(config, path) for path in shapes}
    check_tensors(where, wanted, stored)
    check_floats(where, {name: homes[name].dtype(name) for name in wanted})
    return Checkpoint(
        config=config,
        tensors={
            path: Tensor(
                tuple(shape),
                np.dtype(np.float32),
                functools.partial(_read, homes[hf_key(config, path)], config, path),
            )
            for path, shape in shapes.items()
        },
        tokenizer=Tokenizer.from_folder(folder),
        source={
            "name": folder.resolve().name,
            "format": "huggingface",
            "bytes": sum(file.nbytes for file in files),
            "sample_sha256": sample_sha256([folder / "config.json", *(f.path for f in files)]),
        },
        hf_config=hf_config,
        image_processing=check_processing(where, config, _image_processing(folder, config)),
    )


def _image_processing(folder: Path, config: ModelConfig) -> ImageProcessing | None:
    return ImageProcessing.from_folder(folder) if isinstance(config, ViTConfig) else None


def is_transposed(path: str) -> bool:
    """Whether Hugging Face stores this parameter the other way round.

    Example:
        >>> is_transposed("embedding.kernel"), is_transposed("positions.table")
        (True, False)
    """
    return path.endswith(".kernel")


def check_floats(where: str, dtypes: Mapping[str, np.dtype]) -> None:
    """Raises ValueError where a tensor is not of floats."""
    if odd := [name for name, dtype in dtypes.items() if dtype not in _FLOATS]:
        raise ValueError(
            f"{where}: {odd[0]} and {len(odd) - 1} more are {dtypes[odd[0]]}; weights "
            "must be float32, float16 or bfloat16: start from a model that is not quantized yet."
        )


def from_stored(config: ModelConfig, path: str, values: np.ndarray) -> np.ndarray:
    """A parameter of ours from the tensor that Hugging Face stores it as."""
    shape = parameter_shapes(config)[path]
    return values.reshape(shape[::-1]).T if is_transposed(path) else values.reshape(shape)


def to_stored(config: ModelConfig, path: str, values: np.ndarray) -> np.ndarray:
    """The tensor that Hugging Face stores a parameter of ours as."""
    rows = values.T if is_transposed(path) else values
    return rows.reshape(hf_shape(config, path))


def _read(file: SafetensorsFile, config: ModelConfig, path: str) -> np.ndarray:
    values = from_stored(config, path, file.read(hf_key(config, path)))
    return np.ascontiguousarray(values, np.float32)


def _is_untied(config: ModelConfig, homes: Mapping[str, SafetensorsFile]) -> bool:
    """Whether a T5 that calls itself tied has an output projection beside its embedding.

    transformers 5 writes `tie_word_embeddings: true` for every T5 and looks at the file itself.
    """
    names = ("shared.weight", "lm_head.weight")
    if not isinstance(config, T5Config) or not config.tied or not homes.keys() >= set(names):
        return False
    shared, output = (homes[name].read(name) for name in names)
    return not np.array_equal(shared, output)


_SPARE_OF_T5 = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)


def _is_spare(name: str, config: ModelConfig) -> bool:
    """Whether a tensor is stored by habit and says nothing that the config does not."""
    if isinstance(config, T5Config) and name in _SPARE_OF_T5:
        return True
    tied = not isinstance(config, ViTConfig) and config.tied
    return name.endswith(".rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def open_shards(folder: Path) -> list[SafetensorsFile]:
    """The weights of a folder: one file, or those that its index lists.

    Raises:
        ValueError: there are none, or they are damaged or do not belong together.
    """
    if (folder / INDEX).exists():
        return _open_indexed(folder, read_json(folder / INDEX))
    if (folder / WHOLE).exists():
        return [_open(folder / WHOLE)]
    if found := sorted(file.name for file in folder.glob("*.bin")):
        raise ValueError(
            f"Model folder {folder} has its weights as {found[0]}: a pickle of PyTorch, which can "
            "run any code and is not read; save the model as safetensors."
        )
    raise ValueError(f"Model folder {folder} has neither {WHOLE} nor {INDEX}.")


def _open(path: Path) -> SafetensorsFile:
    try:
        return SafetensorsFile(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def _open_indexed(folder: Path, index: Mapping[str, Any]) -> list[SafetensorsFile]:
    """Opens the shards of an index, and holds the index against what they have."""
    homes = index.get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(home, str) for home in homes.values()):
        raise ValueError(f"{folder / INDEX} needs a weight_map from tensors to files.")
    for home in homes.values():
        if PurePath(home).name != home or home in ("", "..") or "\\" in home:
            raise ValueError(
                f"{folder / INDEX} names the file {home!r}, which is not in the folder itself; "
                "such names are refused."
            )
    files = {home: _open(folder / home) for home in sorted(set(homes.values()))}
    if lost := [name for name, home in homes.items() if name not in files[home].names]:
        raise ValueError(
            f"{folder / INDEX} says that {lost[0]} is in {homes[lost[0]]}, which does not have it "
            f"({len(lost)} such tensors): shards and index belong to different models."
        )
    names = [name for file in files.values() for name in file.names]
    if len(names) != len(set(names)):
        raise ValueError(f"Model folder {folder} has tensors that are in several shards.")
    return list(files.values())
