"""Vision transformers as timm saves them: a config.json of timm's, and safetensors."""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.data import ImageProcessing
from gossamer.data.images import FILTERS
from gossamer.data.json_files import read_json
from gossamer.loading.checkpoint import (
    Checkpoint,
    Shape,
    Tensor,
    check_processing,
    check_sizes,
    check_tensors,
)
from gossamer.loading.huggingface import check_floats, from_stored, open_shards
from gossamer.loading.identity import sample_sha256
from gossamer.models import Pooling, ViTActivation, ViTConfig, hf_shape, parameter_shapes
from gossamer.packing import SafetensorsFile

NORM_EPSILON = 1e-6
"""Of all of timm's plain vision transformers; their configs do not tell."""

_ARCHITECTURE = re.compile(r"(vit|deit)_(tiny|small|base|large|huge|giant)_patch\d+_\d+")
_HEADS = {  # size -> hidden size and heads, which no tensor's shape tells
    "tiny": (192, 3),
    "small": (384, 6),
    "base": (768, 12),
    "large": (1024, 16),
    "huge": (1280, 16),
    "giant": (1408, 16),
}
_ACTIVATIONS: dict[str, ViTActivation] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
_POOLING: dict[str, Pooling] = {"token": "class", "avg": "mean"}
_READ = {  # arguments that are read, that tensors show, or that only training knows
    *("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads"),
    *("mlp_ratio", "qkv_bias", "global_pool", "act_layer", "weight_init", "drop_rate"),
    *("pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
}
_ONLY: dict[str, Any] = {  # arguments with which a model would compute something else
    "class_token": True,
    "qk_norm": False,
    "init_values": None,
    "reg_tokens": 0,
    "pre_norm": False,
    "final_norm": True,
    "fc_norm": None,
    "no_embed_class": False,
    "pos_embed": "learn",
    "proj_bias": True,
    "dynamic_img_size": False,
    "dynamic_img_pad": False,
    "pool_include_prefix": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
}
_MARKS = {  # a part of a tensor's name -> what is not supported
    ".ls1.": "LayerScale",
    ".q_norm.": "norms of queries and keys",
    "reg_token": "registers",
    "norm_pre.": "a norm in front of the blocks",
    "attn_pool.": "pooling by attention",
    "dist_token": "distillation",
    ".rel_pos": "relative positions",
}
_MODULES = {
    "patch_embedding": "patch_embed.proj",
    "attention_norm": "norm1",
    "attention.q_proj": "attn.qkv",
    "attention.k_proj": "attn.qkv",
    "attention.v_proj": "attn.qkv",
    "attention.out_proj": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "head": "head",
}
_TABLES = {"class_token.table": "cls_token", "positions.table": "pos_embed"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_FUSED = ("q_proj", "k_proj", "v_proj")
"""One tensor at timm, in this order."""


def is_timm(folder: str | Path) -> bool:
    """Whether a folder is a model of timm's, by its config.json."""
    try:
        data = read_json(Path(folder) / "config.json")
    except ValueError:
        return False
    return "architecture" in data and "model_type" not in data


def load_timm(folder: str | Path) -> Checkpoint:
    """Opens a vision transformer of timm's; tensors are read when they are asked for, as float32.

    Images are resized as wholes: the crop that `pretrained_cfg` may ask for (`crop_pct`) is left
    out.

    Args:
        folder: holds `config.json` and `model.safetensors`.

    Raises:
        ValueError: a file is missing or damaged, the model has parts that are not supported, or the
            tensors are not those of its config; all of them are named.
    """
    folder = Path(folder)
    where = f"Folder {folder} of timm"
    data = read_json(folder / "config.json")
    files = open_shards(folder)
    homes = {name: file for file in files for name in file.names}
    stored = {name: tuple(homes[name].shape(name)) for name in homes}
    config = _config(where, data, stored)
    check_sizes(where, config, stored.values())
    shapes = parameter_shapes(config)
    wanted = {timm_key(config, path): _stored_shape(config, path) for path in shapes}
    check_tensors(where, wanted, stored)
    check_floats(where, {name: homes[name].dtype(name) for name in wanted})
    processing = _processing(where, data, config)
    return Checkpoint(
        config=config,
        tensors={path: _tensor(homes, config, path) for path in shapes},
        tokenizer=None,
        source={
            "name": folder.resolve().name,
            "format": "timm",
            "bytes": sum(file.nbytes for file in files),
            "sample_sha256": sample_sha256([folder / "config.json", *(f.path for f in files)]),
        },
        hf_config=_hf_config(config, data),
        image_processing=check_processing(where, config, processing),
    )


def timm_key(config: ViTConfig, path: str) -> str:
    """The name that timm gives to what holds a parameter of ours.

    Example:
        >>> config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), channels=1, hidden_size=8,
        ...                    intermediate_size=8, num_layers=1, num_heads=2, num_classes=2)
        >>> timm_key(config, "layers.0.attention.k_proj.kernel"), timm_key(config, "norm.scale")
        ('blocks.0.attn.qkv.weight', 'norm.weight')
    """
    if path in _TABLES:
        return _TABLES[path]
    module, leaf = path.rsplit(".", 1)
    if module == "norm":
        return f"{'norm' if config.pooling == 'class' else 'fc_norm'}.{_LEAVES[leaf]}"
    block, prefix = re.match(r"layers\.(\d+)\.", path), ""
    if block:
        module, prefix = module.removeprefix(block[0]), f"blocks.{block[1]}."
    return f"{prefix}{_MODULES[module]}.{_LEAVES[leaf]}"


def _stored_shape(config: ViTConfig, path: str) -> Shape:
    """As transformers stores it, but for what is one tensor here and three there."""
    first, *rest = hf_shape(config, path)
    return (3 * first if _part(path) is not None else first, *rest)


def _part(path: str) -> int | None:
    """Which third of its tensor a parameter is; None if it has one of its own."""
    projection = path.split(".")[-2]
    return _FUSED.index(projection) if projection in _FUSED else None


def _tensor(homes: Mapping[str, SafetensorsFile], config: ViTConfig, path: str) -> Tensor:
    name = timm_key(config, path)
    read: Callable[[], np.ndarray] = functools.partial(_read, homes[name], name, config, path)
    return Tensor(tuple(parameter_shapes(config)[path]), np.dtype(np.float32), read)


def _read(file: SafetensorsFile, name: str, config: ViTConfig, path: str) -> np.ndarray:
    values, part = file.read(name), _part(path)
    if part is not None:
        values = np.split(values, 3)[part]
    return np.ascontiguousarray(from_stored(config, path, values), np.float32)


def _config(where: str, data: Mapping[str, Any], stored: Mapping[str, Shape]) -> ViTConfig:
    """The sizes: from the tensors what they show, from timm's config the rest.

    Raises:
        ValueError: names all that is not supported.
    """
    arguments = data.get("model_args") or {}
    pretrained = data.get("pretrained_cfg") or {}
    if not isinstance(arguments, Mapping) or not isinstance(pretrained, Mapping):
        raise ValueError(f"{where}: model_args and pretrained_cfg must be objects.")
    faults = [*_faults(data, arguments), *_marks(stored)]
    embedding = stored.get("patch_embed.proj.weight", ())
    blocks = {name.split(".")[1] for name in stored if name.startswith("blocks.")}
    wide = stored.get("blocks.0.mlp.fc1.weight", ())
    if len(embedding) != 4:
        faults.append(f"patch_embed.proj.weight must be [D, C, P, P], got {embedding}")
    if len(wide) != 2:
        faults.append(f"blocks.0.mlp.fc1.weight must be [F, D], got {wide}")
    heads = arguments.get("num_heads") or _heads(data, embedding)
    if type(heads) is not int or heads < 1:
        heads = 0
        faults.append("model_args.num_heads must tell the heads of a model of this size")
    classes = data.get("num_classes")
    if type(classes) is not int or classes < 1:
        faults.append(f"num_classes must be a whole number of at least 1, got {classes!r}")
        classes = 0
    size = arguments.get("img_size") or (pretrained.get("input_size") or [0])[1:]
    size = [size, size] if isinstance(size, int) else size
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        faults.append(f"img_size or pretrained_cfg.input_size must tell the size, got {size!r}")
    if faults:
        raise ValueError(f"{where} cannot be used: {'; '.join(faults)}.")
    hidden, channels, rows, columns = embedding
    return ViTConfig(
        image_size=(size[0], size[1]),
        patch_size=(rows, columns),
        channels=channels,
        hidden_size=hidden,
        intermediate_size=wide[0],
        num_layers=len(blocks),
        num_heads=heads,
        num_classes=classes,
        norm_epsilon=NORM_EPSILON,
        qkv_bias="blocks.0.attn.qkv.bias" in stored,
        activation=_ACTIVATIONS[_activation(arguments)],
        pooling=_POOLING[_pool(data, arguments)],
    )


def _faults(data: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """What timm's config asks for and is not supported."""
    faults = []
    if not _ARCHITECTURE.fullmatch(str(data.get("architecture"))):
        faults.append(
            f"architecture must be vit_SIZE_patchN_N or deit_SIZE_patchN_N with a SIZE of "
            f"{', '.join(_HEADS)}, got {data.get('architecture')!r}"
        )
    if _pool(data, arguments) not in _POOLING:
        faults.append(f"global_pool must be 'token' or 'avg', got {_pool(data, arguments)!r}")
    for name, value in arguments.items():
        if name in _ONLY and value != _ONLY[name]:
            faults.append(f"model_args.{name} must be {_ONLY[name]!r}, got {value!r}")
        elif name not in _ONLY and name not in _READ:
            faults.append(f"model_args.{name} is not supported, got {value!r}")
    if (activation := _activation(arguments)) not in _ACTIVATIONS:
        faults.append(f"act_layer must be one of {list(_ACTIVATIONS)}, got {activation!r}")
    return faults


def _marks(stored: Mapping[str, Shape]) -> list[str]:
    """What the tensors show and is not supported."""
    found = [
        f"{part} is not supported ({names[0]})"
        for mark, part in _MARKS.items()
        if (names := [name for name in stored if mark in name])
    ]
    return found + ([] if "cls_token" in stored else ["a model needs a class token (cls_token)"])


def _pool(data: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("global_pool") or data.get("global_pool") or "token")


def _activation(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("act_layer") or "gelu")


def _heads(data: Mapping[str, Any], embedding: Shape) -> int | None:
    """The heads that belong to the name of a size, if the hidden size does too."""
    found = _ARCHITECTURE.fullmatch(str(data.get("architecture")))
    if found is None:
        return None
    hidden, heads = _HEADS[found[2]]
    return heads if embedding[:1] == (hidden,) else None


def _processing(where: str, data: Mapping[str, Any], config: ViTConfig) -> ImageProcessing | None:
    """How `pretrained_cfg` says that images are prepared."""
    pretrained = data.get("pretrained_cfg") or {}
    if "mean" not in pretrained or "std" not in pretrained:
        return None
    name = pretrained.get("interpolation") or "bilinear"
    fields = {
        "size": {"height": config.image_size[0], "width": config.image_size[1]},
        "image_mean": pretrained["mean"],
        "image_std": pretrained["std"],
        "resample": FILTERS.index(name) if name in FILTERS else name,
    }
    return ImageProcessing.from_hf(fields, where=f"{where}: pretrained_cfg")


def _hf_config(config: ViTConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same model at Hugging Face, with the labels' names if timm tells them."""
    hf_config, names = config.to_hf(), data.get("label_names")
    if isinstance(names, list) and len(names) == config.num_classes:
        hf_config["id2label"] = {str(index): str(name) for index, name in enumerate(names)}
        hf_config["label2id"] = {str(name): index for index, name in enumerate(names)}
    return hf_config
