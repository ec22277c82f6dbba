"""A run of seconds: a tiny Llama on a text that repeats itself."""

import numpy as np

from gossamer.data import Tokenizer
from gossamer.models import LlamaConfig
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.training import AdamW, MeshConfig, TextCorpus, TrainingConfig

MODEL = LlamaConfig(
    vocab_size=256,
    hidden_size=32,
    intermediate_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=32,
)
FEED_FORWARD = r"layers\..*\.mlp\..*\.kernel"
RECIPE = Recipe(rules=(Rule(path=FEED_FORWARD, pattern=NM(2, 4)),))
UP = "layers.0.mlp.up_proj.kernel"


def corpus() -> TextCorpus:
    tokens = np.frombuffer(b"hello, hello, he fell; " * 60, np.uint8).astype(np.int32)
    return TextCorpus(learned=tokens[:1000], held_out=tokens[1000:], tokenizer=Tokenizer.of_bytes())


def run(**changes) -> TrainingConfig:
    settings = {
        "model": MODEL,
        "steps": 6,
        "batch": 4,
        "context": 16,
        "optimizer": AdamW(learning_rate=1e-2, warmup=2, weight_decay=0.1),
        "log_every": 1,
        "checkpoint_every": 3,
        "mesh": MeshConfig(data=1),
    }
    return TrainingConfig(**(settings | changes))
