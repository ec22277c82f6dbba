"""Training runs by name. Their text is Python's own sources, so that none needs a download."""

import dataclasses

from gossamer.models import LlamaConfig
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, MdGf
from gossamer.training.config import TrainingConfig
from gossamer.training.optimizers import AdamW

STEPS = 2500

BYTE_LM = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=256,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    max_positions=128,
)
"""A byte-level language model of 0.16 million parameters: minutes on one core."""


def _feed_forward(pattern: NM) -> Recipe:
    rule = Rule(path=r"layers\..*\.mlp\..*\.kernel", pattern=pattern)
    return Recipe(name=f"{pattern} feed-forward", rules=(rule,))


_DENSE = TrainingConfig(
    model=BYTE_LM,
    steps=STEPS,
    batch=8,
    context=BYTE_LM.max_positions,
    optimizer=AdamW(learning_rate=4e-3, warmup=100, weight_decay=0.01),
    log_every=50,
    checkpoint_every=500,
)

PRESETS: dict[str, TrainingConfig] = {
    "byte-lm": _DENSE,
    "byte-lm-2:4-sr-ste": dataclasses.replace(_DENSE, method=SRSTE(recipe=_feed_forward(NM(2, 4)))),
    # Dense for 2 %, and strictly sparse for the last 30 %, as the paper advises.
    "byte-lm-1:16-mdgf": dataclasses.replace(
        _DENSE,
        method=MdGf(recipe=_feed_forward(NM(1, 16)), start=STEPS // 50, stop=STEPS * 7 // 10),
    ),
}
"""Training runs by name; patterns and schedules after Bambhaniya et al. 2024, arXiv 2402.04744."""
