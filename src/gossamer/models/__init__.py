"""Models as Flax NNX modules: a file a family, and how weights get into them.

What a model computes is here and in `gossamer.nn`; where weights come from is in
`gossamer.loading`, and how text is generated in `gossamer.inference`.
"""

from gossamer.models._decoder import Cache, Decoder, DecoderBlock
from gossamer.models._model import Block, Flow, Model, Rescalable, Sublayer, rows
from gossamer.models.build import (
    DecoderConfig,
    ModelConfig,
    block_class,
    build,
    build_block,
    build_ends,
    classifier_config,
    config_from_hf,
    decoder_config,
    hf_key,
    hf_shape,
    model_class,
    parameter_shapes,
)
from gossamer.models.llama import Llama, LlamaBlock, LlamaConfig
from gossamer.models.opt import Opt, OptBlock, OptConfig
from gossamer.models.t5 import T5, T5Block, T5Config, T5Inputs
from gossamer.models.vit import Pooling, ViT, ViTActivation, ViTBlock, ViTConfig

__all__ = [
    "T5",
    "Block",
    "Cache",
    "Decoder",
    "DecoderBlock",
    "DecoderConfig",
    "Flow",
    "Llama",
    "LlamaBlock",
    "LlamaConfig",
    "Model",
    "ModelConfig",
    "Opt",
    "OptBlock",
    "OptConfig",
    "Pooling",
    "Rescalable",
    "Sublayer",
    "T5Block",
    "T5Config",
    "T5Inputs",
    "ViT",
    "ViTActivation",
    "ViTBlock",
    "ViTConfig",
    "block_class",
    "build",
    "build_block",
    "build_ends",
    "classifier_config",
    "config_from_hf",
    "decoder_config",
    "hf_key",
    "hf_shape",
    "model_class",
    "parameter_shapes",
    "rows",
]
