"""Training runs by name. None needs a download: language models learn Python's own sources, vision
transformers scikit-learn's digits, and translation a file of pairs that the user has.
"""

import dataclasses

from gossamer.models import LlamaConfig, T5Config, ViTConfig
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, MdGf
from gossamer.training.config import ImagesConfig, PairsConfig, QuantizationConfig, TrainingConfig
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
    rule = Rule(path=r"(\w+\.)?layers\..*\.mlp\..*\.kernel", pattern=pattern)
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

TRANSLATOR = T5Config(
    vocab_size=2048,
    hidden_size=128,
    intermediate_size=512,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=8,
    head_dim=16,
    buckets=16,
    max_distance=32,
    scaled_output=False,
)
"""An encoder-decoder of 1.2 million parameters: a quarter of an hour on one core."""

_TRANSLATION = TrainingConfig(
    model=TRANSLATOR,
    data=PairsConfig(vocab_size=TRANSLATOR.vocab_size),
    steps=3000,
    batch=16,
    context=64,
    # Tried, BLEU of a dense run: 4 heads of 32, second moments that decay by 0.999, 14.1, and with
    # half the learning rate 16.7; by 0.98, as Vaswani et al. 2017 have it, 16.1; 8 heads too, 21.2.
    optimizer=AdamW(learning_rate=2e-3, warmup=200, weight_decay=0.01, b2=0.98),
    log_every=50,
    checkpoint_every=500,
)


_DIGITS = TrainingConfig(
    model=ViTConfig(
        image_size=(8, 8),
        patch_size=(2, 2),
        channels=1,
        hidden_size=64,
        intermediate_size=256,
        num_layers=4,
        num_heads=4,
        num_classes=10,
    ),
    data=ImagesConfig(),
    steps=600,
    batch=64,
    optimizer=AdamW(learning_rate=2e-3, warmup=50, weight_decay=0.05),
    log_every=50,
    checkpoint_every=200,
)
"""A vision transformer of 0.2 million parameters: a minute on one core."""


def _blocks(pattern: NM) -> Recipe:
    """All kernels of all blocks."""
    rule = Rule(path=r"(\w+\.)?layers\..*\.kernel", pattern=pattern)
    return Recipe(name=f"{pattern} blocks", rules=(rule,))


PRESETS: dict[str, TrainingConfig] = {
    "byte-lm": _DENSE,
    "byte-lm-2:4-sr-ste": dataclasses.replace(_DENSE, method=SRSTE(recipe=_feed_forward(NM(2, 4)))),
    # Dense for 2 %, and strictly sparse for the last 30 %, as the paper advises.
    "byte-lm-1:16-mdgf": dataclasses.replace(
        _DENSE,
        method=MdGf(recipe=_feed_forward(NM(1, 16)), start=STEPS // 50, stop=STEPS * 7 // 10),
    ),
    "digits": _DIGITS,
    "digits-2:4-sr-ste": dataclasses.replace(_DIGITS, method=SRSTE(recipe=_feed_forward(NM(2, 4)))),
    "translation": _TRANSLATION,
    "translation-2:4-sr-ste": dataclasses.replace(
        _TRANSLATION, method=SRSTE(recipe=_feed_forward(NM(2, 4)))
    ),
    # All kernels of the blocks in a quarter of their places and four bits.
    "translation-1:4-int4": dataclasses.replace(
        _TRANSLATION,
        method=MdGf(
            recipe=_blocks(NM(1, 4)),
            start=_TRANSLATION.steps // 50,
            stop=_TRANSLATION.steps * 7 // 10,
        ),
        quantization=QuantizationConfig(recipe=Recipe.load("1:4-int4"), multiply="fake"),
    ),
}
"""Training runs by name; patterns and schedules after Bambhaniya et al. 2024, arXiv 2402.04744."""
