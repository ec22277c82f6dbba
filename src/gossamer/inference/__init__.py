"""Running models: a block at a time over whole texts, or token by token."""

from gossamer.inference.blockwise import embed, run_block, run_blocks

__all__ = ["embed", "run_block", "run_blocks"]
