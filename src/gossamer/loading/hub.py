"""Models from the Hugging Face hub."""

import dataclasses

import huggingface_hub
import huggingface_hub.errors

from gossamer.loading.checkpoint import Checkpoint
from gossamer.loading.huggingface import load_huggingface
from gossamer.loading.timm import is_timm, load_timm

_FILES = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
]


def load_hub(name: str) -> Checkpoint:
    """Fetches a model's folder, or finds it in the local cache, and opens it.

    Args:
        name: `organization/name`.

    Raises:
        ValueError: it cannot be had: no network, no such model, or no right to it.
    """
    try:
        folder = huggingface_hub.snapshot_download(name, allow_patterns=_FILES)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"There is no file or folder {name!r}, and the Hugging Face hub did not give a model "
            f"of this name: {reason} Without a network, fetch it elsewhere and give its folder."
        ) from error
    checkpoint = load_timm(folder) if is_timm(folder) else load_huggingface(folder)
    return dataclasses.replace(checkpoint, source={**checkpoint.source, "name": name})
