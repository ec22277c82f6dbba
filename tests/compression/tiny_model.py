"""A small random language model in memory, without a tokenizer."""

import numpy as np

from gossamer.loading import Checkpoint, Tensor
from gossamer.models import LlamaConfig, parameter_shapes

CONFIG = LlamaConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=64,
    tied=True,
)


def random_weights(config=CONFIG, seed=0):
    """Norm scales near 1, kernels that keep the size of what they multiply."""
    rng = np.random.default_rng(seed)
    return {
        path: (
            rng.normal(size=shape) / np.sqrt(shape[0])
            if len(shape) == 2
            else 1 + 0.1 * rng.normal(size=shape)
        ).astype(np.float32)
        for path, shape in parameter_shapes(config).items()
    }


def in_memory(weights, config=CONFIG):
    tensors = {
        path: Tensor(weight.shape, weight.dtype, lambda weight=weight: weight)
        for path, weight in weights.items()
    }
    return Checkpoint(
        config=config,
        tensors=tensors,
        tokenizer=None,
        source={"name": "tiny", "format": "memory"},
        hf_config=config.to_hf(),
    )
