"""Reads models (interim: export and save follow)."""

from gossamer.loading.checkpoint import Checkpoint, Tensor
from gossamer.loading.gguf_files import load_gguf
from gossamer.loading.llama2c import load_llama2c
from gossamer.loading.sources import load

__all__ = ["Checkpoint", "Tensor", "load", "load_gguf", "load_llama2c"]
