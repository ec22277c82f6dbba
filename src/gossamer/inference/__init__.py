"""Running models: a block at a time over whole texts, or token by token."""

from gossamer.inference.blockwise import begin, run_block, run_blocks
from gossamer.inference.generate import Generation, generate
from gossamer.inference.sampling import Sampling

__all__ = ["Generation", "Sampling", "begin", "generate", "run_block", "run_blocks"]
