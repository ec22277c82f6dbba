"""Folders of golden vision transformers, as transformers and timm save them."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
HUGGINGFACE = ["vit_colour_rectangles", "vit_gelu_new", "vit_grey"]
TIMM = ["timm_class_token", "timm_mean_pooled"]


def arrays_of(name):
    """All that a golden file holds, weights as float32."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {
            key: value.astype(np.float32) if value.dtype == np.float16 else value
            for key, value in file.items()
        }


def write_folder(folder, name, *, drop=(), add=None, processing=True, **fields):
    """Writes a golden model; `fields` change its config, `drop` and `add` its tensors."""
    arrays = arrays_of(name)
    config = {**json.loads(str(arrays.pop("config"))), **fields}
    images, logits = arrays.pop("images"), arrays.pop("logits")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weights = {key: value for key, value in arrays.items() if key not in drop} | (add or {})
    save_file(weights, folder / "model.safetensors")
    if processing and "model_type" in config:
        height, width, channels = images.shape[1:]
        (folder / "preprocessor_config.json").write_text(
            json.dumps(
                {
                    "size": {"height": height, "width": width},
                    "image_mean": [0.5] * channels,
                    "image_std": [0.25] * channels,
                    "resample": 3,
                }
            )
        )
    return images, logits
