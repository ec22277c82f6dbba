"""Running models: a block at a time over whole texts, or token by token."""

from gossamer.inference.blockwise import begin, run_block, run_blocks
from gossamer.inference.encoder_decoder import greedy, translate, translate_with
from gossamer.inference.generate import Generation, generate
from gossamer.inference.sampling import Sampling

__all__ = [
    "Generation",
    "Sampling",
    "begin",
    "generate",
    "greedy",
    "run_block",
    "run_blocks",
    "translate",
    "translate_with",
]
