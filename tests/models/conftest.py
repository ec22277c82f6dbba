"""The golden models: tiny, random, with the logits that transformers or timm computed."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from gossamer.models import (
    Decoder,
    DecoderConfig,
    Model,
    ModelConfig,
    ViT,
    ViTConfig,
    build,
    config_from_hf,
    hf_key,
    parameter_shapes,
)

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
IMAGES = [name for name in NAMES if name.startswith("vit_")]
TEXTS = [name for name in NAMES if name.startswith(("llama_", "opt_"))]


def read(name: str) -> tuple[ModelConfig, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The config, the weights by our paths, and all arrays of a file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    config = config_from_hf(json.loads(str(arrays["config"])))
    weights = {}
    for path, shape in parameter_shapes(config).items():
        weight = arrays[hf_key(config, path)].astype(np.float32)
        kernel = path.endswith(".kernel")
        weights[path] = weight.reshape(shape[::-1]).T if kernel else weight.reshape(shape)
    return config, weights, arrays


@dataclasses.dataclass(frozen=True)
class Golden:
    """A language model that scripts/make_golden_logits.py made."""

    config: DecoderConfig
    weights: dict[str, np.ndarray]  # by our paths
    tokens: np.ndarray  # [B, T]
    logits: np.ndarray  # [B, T, V]

    @classmethod
    def load(cls, name: str) -> "Golden":
        config, weights, arrays = read(name)
        return cls(config, weights, arrays["tokens"], arrays["logits"])

    @property
    def inputs(self) -> np.ndarray:
        return self.tokens

    def model(self) -> Decoder:
        return build(self.config, self.weights.__getitem__)


@dataclasses.dataclass(frozen=True)
class GoldenViT:
    """A vision transformer that scripts/make_golden_vit.py made with transformers."""

    config: ViTConfig
    weights: dict[str, np.ndarray]  # by our paths
    images: np.ndarray  # [B, H, W, C]
    logits: np.ndarray  # [B, classes]

    @classmethod
    def load(cls, name: str) -> "GoldenViT":
        config, weights, arrays = read(name)
        return cls(config, weights, arrays["images"], arrays["logits"])

    @property
    def inputs(self) -> np.ndarray:
        return self.images

    def model(self) -> ViT:
        model: Model = build(self.config, self.weights.__getitem__)
        assert isinstance(model, ViT)
        return model


@pytest.fixture(params=TEXTS)
def golden(request) -> Golden:
    """Every golden language model in turn."""
    return Golden.load(request.param)


@pytest.fixture(params=IMAGES)
def golden_vit(request) -> GoldenViT:
    """Every golden vision transformer in turn."""
    return GoldenViT.load(request.param)


@pytest.fixture(params=["llama_grouped_tied", "opt_untied"])
def family(request) -> Golden:
    """One model of each family of decoders."""
    return Golden.load(request.param)


@pytest.fixture(params=["llama_grouped_tied", "opt_untied", "vit_grey"])
def any_family(request) -> Golden | GoldenViT:
    """One model of each family."""
    return (GoldenViT if request.param in IMAGES else Golden).load(request.param)
