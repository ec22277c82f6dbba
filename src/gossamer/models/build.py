"""Puts weights into models, whole or a block at a time, whatever type each weight has."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, overload

import jax
import numpy as np
from flax import nnx

from gossamer.models import _model
from gossamer.models._decoder import Decoder
from gossamer.models._model import Block, Model
from gossamer.models.llama import Llama, LlamaConfig
from gossamer.models.opt import Opt, OptConfig
from gossamer.models.t5 import T5, T5Config
from gossamer.models.vit import MEAN_POOLED, ViT, ViTConfig
from gossamer.nn.linear import variable
from gossamer.weights import Kernel

DecoderConfig: TypeAlias = LlamaConfig | OptConfig
"""Of language models that continue a text."""
ModelConfig: TypeAlias = DecoderConfig | T5Config | ViTConfig
Read: TypeAlias = Callable[[str], Kernel]
"""From a parameter's path to its weight; a plain one is float32."""

_FAMILIES: dict[str, tuple[type[Any], type[Model]]] = {
    "llama": (LlamaConfig, Llama),
    "opt": (OptConfig, Opt),
    "t5": (T5Config, T5),
    "vit": (ViTConfig, ViT),
    MEAN_POOLED: (ViTConfig, ViT),
}


def config_from_hf(data: Mapping[str, Any]) -> ModelConfig:
    """Reads a Hugging Face `config.json` of a supported family.

    Raises:
        ValueError: the family or a field is not supported.
    """
    family = data.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(
            f"This config.json has model_type {family!r}; supported: {list(_FAMILIES)}."
        )
    return _FAMILIES[family][0].from_hf(data)


def model_class(config: ModelConfig) -> type[Model]:
    """The class of models that a config belongs to."""
    return next(model for kind, model in _FAMILIES.values() if isinstance(config, kind))


def decoder_config(config: ModelConfig) -> DecoderConfig:
    """The config, if it is of a language model that continues a text.

    Raises:
        ValueError: it is of another kind of model.
    """
    if not isinstance(config, DecoderConfig):
        raise ValueError(
            f"This is for language models that continue a text, and a {type(config).__name__} "
            "is of another kind of model."
        )
    return config


def classifier_config(config: ModelConfig) -> ViTConfig:
    """The config, if it is of a model that classifies images.

    Raises:
        ValueError: it is of another kind of model.
    """
    if not isinstance(config, ViTConfig):
        raise ValueError(
            f"This is for models that classify images, and a {type(config).__name__} is of another "
            "kind of model."
        )
    return config


def block_class(config: ModelConfig, path: str) -> type[Block]:
    """The class of one of the config's `blocks`."""
    return model_class(config).block_class(path)


def hf_key(config: ModelConfig, path: str) -> str:
    """The name that Hugging Face gives to a parameter of ours.

    A `.kernel` of ours is the transpose of theirs, the embedding's too; all else is as it is, but
    for the shapes that `hf_shape` tells.

    Example:
        >>> config = OptConfig(vocab_size=9, hidden_size=4, intermediate_size=8, num_layers=1,
        ...                    num_heads=2, max_positions=16)
        >>> hf_key(config, "layers.0.mlp.fc1.kernel")
        'model.decoder.layers.0.fc1.weight'
    """
    return _model.hf_key(model_class(config).hf_names(config), path)


def hf_shape(config: ModelConfig, path: str) -> tuple[int, ...]:
    """The shape in which Hugging Face stores a parameter of ours.

    Example:
        >>> config = OptConfig(vocab_size=9, hidden_size=4, intermediate_size=8, num_layers=1,
        ...                    num_heads=2, max_positions=16)
        >>> hf_shape(config, "layers.0.mlp.fc1.kernel")
        (8, 4)
    """
    others = model_class(config).hf_shapes(config)
    shape = parameter_shapes(config)[path]
    return others.get(path, shape[::-1] if path.endswith(".kernel") else shape)


@functools.cache
def parameter_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Path -> shape of every parameter: those outside the blocks first, then block by block."""
    shapes = _shapes(_abstract_ends(config))
    blocks: dict[type[Block], dict[str, tuple[int, ...]]] = {}
    for path in config.blocks:
        kind = block_class(config, path)
        if kind not in blocks:
            blocks[kind] = _shapes(_abstract_block(config, path))
        shapes |= {f"{path}.{local}": shape for local, shape in blocks[kind].items()}
    return shapes


@overload
def build(config: DecoderConfig, read: Read) -> Decoder: ...
@overload
def build(config: ModelConfig, read: Read) -> Model: ...


def build(config: ModelConfig, read: Read) -> Model:
    """A whole model with the weights that `read` gives.

    Raises:
        ValueError: a weight is missing a dimension or has another shape or type than the model
            needs; its path is named.
    """
    model = build_ends(config, read)
    model.set_blocks([build_block(config, read, index) for index in range(config.num_blocks)])
    model.config = config
    return model


def build_block(config: ModelConfig, read: Read, index: int) -> Block:
    """Block `index` of `config.blocks` alone, as `block.through(flow)`.

    Blocks whose weights have the same types split into equal graph definitions, so that a function
    compiled with the definition as a static argument serves them all.
    """
    path = config.blocks[index]
    block = _abstract_block(config, path)
    _fill(block, read, f"{path}.")
    return block


@overload
def build_ends(config: DecoderConfig, read: Read) -> Decoder: ...
@overload
def build_ends(config: ModelConfig, read: Read) -> Model: ...


def build_ends(config: ModelConfig, read: Read) -> Model:
    """A model without blocks: `begin`, and what comes behind the last block."""
    model = _abstract_ends(config)
    _fill(model, read, "")
    return model


def _abstract_block(config: ModelConfig, path: str) -> Block:
    """A block whose weights have shapes and no values."""
    kind: Any = block_class(config, path)
    return nnx.eval_shape(lambda: kind(config, nnx.Rngs(0)))


def _abstract_ends(config: ModelConfig) -> Model:
    return nnx.eval_shape(lambda: model_class(config)(config.without_blocks(), nnx.Rngs(0)))


def _shapes(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    state = nnx.to_flat_state(nnx.state(module))
    return {".".join(map(str, path)): variable.shape for path, variable in state}


def _fill(module: nnx.Module, read: Read, prefix: str) -> None:
    """Sets every variable of an abstract module."""
    for local, shape in _shapes(module).items():
        weight = read(prefix + local)
        if tuple(weight.shape) != tuple(shape):
            raise ValueError(
                f"{prefix}{local} needs the shape {tuple(shape)}, got {tuple(weight.shape)}; the "
                "weights do not belong to this config."
            )
        *parents, name = local.split(".")
        owner = functools.reduce(getattr, parents, module)
        setattr(owner, name, _variable(weight, prefix + local))


def _variable(weight: Kernel, path: str) -> nnx.Variable:
    if not isinstance(weight, jax.Array | np.ndarray):
        return variable(weight)
    if weight.dtype != np.float32:
        raise ValueError(f"{path} must be float32, got {weight.dtype}; convert it while reading.")
    # A 64-byte-aligned view of a memory map becomes a device array without a copy.
    return variable(jax.device_put(weight))
