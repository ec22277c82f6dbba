"""Makes tests/golden/vit_*.npz and timm_*.npz: tiny random vision transformers and their logits.

    pip install torch==2.13.0 transformers==5.24.0 torchvision==0.28.0 timm==1.0.31
    python scripts/make_golden_vit.py

Each file holds `config` (config.json as text), `images` [B, H, W, C], `logits` [B, classes] in
float32 and the weights under the names that the library gives them on disk, as float16 without
loss. Those of vit_* are of `ViTForImageClassification` of transformers, those of timm_* of timm.
The files in the repository were made with the versions above and Python 3.11 on x86-64; the script
refuses to write if a model built from our `to_hf()` gives other logits than the one built from its
own config.
"""

import json
import pathlib
import tempfile

import numpy as np
import timm
import torch
from make_golden_logits import FOLDER, randomize
from safetensors.numpy import load_file
from timm.models import save_for_hf
from transformers import ViTConfig, ViTForImageClassification

from gossamer.models import config_from_hf

SHARED = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
CONFIGS = {
    "vit_grey": ViTConfig(
        **SHARED, num_attention_heads=4, image_size=8, patch_size=2, num_channels=1, num_labels=10
    ),
    "vit_colour_rectangles": ViTConfig(  # 2 x 3 patches of 4 x 2 pixels
        **SHARED,
        num_attention_heads=2,
        image_size=[8, 6],
        patch_size=[4, 2],
        num_channels=3,
        num_labels=5,
        qkv_bias=False,
        layer_norm_eps=1e-6,
    ),
    "vit_gelu_new": ViTConfig(
        **SHARED,
        num_attention_heads=8,
        image_size=8,
        patch_size=4,
        num_channels=3,
        num_labels=2,
        hidden_act="gelu_new",
    ),
}
TIMM_ARGS = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}
TIMM = {
    "timm_class_token": {**TIMM_ARGS, "img_size": 8, "patch_size": 4, "in_chans": 3},
    "timm_mean_pooled": {
        **TIMM_ARGS,
        "img_size": 8,
        "patch_size": 2,
        "in_chans": 1,
        "global_pool": "avg",
        "qkv_bias": False,
    },
}


def draw_images(generator: torch.Generator, channels: int, height: int, width: int) -> torch.Tensor:
    """Normalized images [B, C, H, W], multiples of 1/64."""
    noise = torch.randn((3, channels, height, width), generator=generator)
    return torch.round(64 * noise) / 64


def write(
    name: str,
    config: dict[str, object],
    images: torch.Tensor,
    logits: np.ndarray,
    weights: dict[str, np.ndarray],
) -> None:
    """Writes one file."""
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        config=json.dumps(config),
        images=images.permute(0, 2, 3, 1).numpy(),
        logits=logits,
        **{key: value.astype(np.float16) for key, value in weights.items()},
    )
    print(f"{name}: logits up to {np.abs(logits).max():.2f}")


def make_vit(name: str, config: ViTConfig, seed: int) -> None:
    """One model of transformers."""
    generator = torch.Generator().manual_seed(seed)
    model = ViTForImageClassification(config).eval()
    randomize(model, generator)
    size = config.image_size
    images = draw_images(
        generator, config.num_channels, *(size if isinstance(size, list) else [size, size])
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(pathlib.Path(folder) / "model.safetensors")
        data = json.loads((pathlib.Path(folder) / "config.json").read_text())
    ours = ViTConfig.from_dict(config_from_hf(data).to_hf())
    again = ViTForImageClassification(ours).eval()
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        logits = model(images).logits.numpy()
        np.testing.assert_array_equal(again(images).logits.numpy(), logits, err_msg=name)
    write(name, data, images, logits, weights)


def make_timm(name: str, arguments: dict[str, object], seed: int) -> None:
    """One model of timm."""
    generator = torch.Generator().manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=6, **arguments).eval()
    randomize(model, generator)
    side = int(str(arguments["img_size"]))
    images = draw_images(generator, int(str(arguments["in_chans"])), side, side)
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
        weights = load_file(pathlib.Path(folder) / "model.safetensors")
        data = json.loads((pathlib.Path(folder) / "config.json").read_text())
    with torch.inference_mode():
        write(name, data, images, model(images).numpy(), weights)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, config) in enumerate(CONFIGS.items()):
        make_vit(name, config, seed)
    for seed, (name, arguments) in enumerate(TIMM.items()):
        make_timm(name, arguments, seed)
