"""INTERIM until packing.files exists: GGUF, llama2.c and smollm2 only."""

from pathlib import Path

from gossamer.loading.checkpoint import Checkpoint
from gossamer.loading.gguf_files import load_gguf
from gossamer.loading.llama2c import load_llama2c
from gossamer.loading.smollm2 import load_smollm2


def load(source: str | Path) -> Checkpoint:
    """Opens a model."""
    path = Path(source)
    if str(source) == "smollm2" and not path.exists():
        return load_smollm2()
    return load_gguf(path) if path.suffix == ".gguf" else load_llama2c(path)
