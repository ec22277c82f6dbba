"""Tiny random models with a tokenizer of bytes and a few merges."""

import dataclasses

import numpy as np
from tokenizers import pre_tokenizers

from gossamer.data import Tokenizer
from gossamer.loading import Checkpoint, Tensor
from gossamer.models import LlamaConfig, OptConfig, T5Config, parameter_shapes

SPECIAL = ["<|begin|>", "<|end|>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["h e", "l l", "he ll", "hell o"]
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for m in messages %}{{ m.content }}>{% endfor %}"
CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_positions=48,
        tied=True,
    ),
    "opt": OptConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        max_positions=48,
        tied=False,
    ),
    "t5": T5Config(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        head_dim=8,
        max_distance=20,
    ),
    "flan_t5": T5Config(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_decoder_layers=2,
        num_heads=2,
        head_dim=16,
        activation="gated-gelu",
        tied=False,
        scaled_output=False,
    ),
}


def byte_tokenizer(**metadata) -> Tokenizer:
    """Letters are tokens, "he", "ll", "hell" and "hello" too; a text does not start with BOS."""
    return Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": TOKENS,
            "tokenizer.ggml.token_type": [3, 3] + [1] * (len(TOKENS) - 2),
            "tokenizer.ggml.merges": MERGES,
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": TEMPLATE,
            **metadata,
        }
    )


def tiny(family: str, seed: int = 0, **sizes: int) -> Checkpoint:
    """A model whose logits differ enough that rounding decides no token."""
    config = dataclasses.replace(CONFIGS[family], **sizes)
    rng = np.random.default_rng(seed)

    def weight(path, shape):
        spread = 0.3 if path.endswith((".kernel", ".table")) else 0.1
        offset = 1.0 if path.endswith("norm.scale") else 0.0
        return (offset + spread * rng.standard_normal(shape)).astype(np.float32)

    weights = {path: weight(path, shape) for path, shape in parameter_shapes(config).items()}
    return Checkpoint(
        config=config,
        tensors={
            path: Tensor(array.shape, array.dtype, lambda array=array: array)
            for path, array in weights.items()
        },
        tokenizer=byte_tokenizer(),
        source={"name": f"tiny {family}", "format": "test"},
        hf_config=config.to_hf(),
    )
