"""Reads models into one form, a `Checkpoint`, whatever file they come in, and writes them again.

A checkpoint is lazy: opening one reads headers, and each tensor is read when it is asked for, in
our orientation and under our name. What is computed with the weights is not decided here.
"""

from gossamer.loading.checkpoint import Checkpoint, Tensor, parts
from gossamer.loading.export import export_dense
from gossamer.loading.gguf_files import load_gguf
from gossamer.loading.huggingface import load_huggingface
from gossamer.loading.llama2c import load_llama2c
from gossamer.loading.saved import load_saved, save
from gossamer.loading.sources import load
from gossamer.loading.timm import load_timm

__all__ = [
    "Checkpoint",
    "Tensor",
    "export_dense",
    "load",
    "load_gguf",
    "load_huggingface",
    "load_llama2c",
    "load_saved",
    "load_timm",
    "parts",
    "save",
]
