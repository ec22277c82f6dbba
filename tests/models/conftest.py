"""The golden models: tiny, random, with the logits that transformers computed."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from gossamer.models import Decoder, ModelConfig, build, config_from_hf, hf_key, parameter_shapes

FOLDER = pathlib.Path(__file__).parents[1] / "golden"


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file that scripts/make_golden_logits.py made."""

    config: ModelConfig
    weights: dict[str, np.ndarray]  # by our paths
    tokens: np.ndarray  # [B, T]
    logits: np.ndarray  # [B, T, V]

    @classmethod
    def load(cls, name: str) -> "Golden":
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = dict(file)
        config = config_from_hf(json.loads(str(arrays["config"])))
        weights = {}
        for path in parameter_shapes(config):
            weight = arrays[hf_key(config, path)].astype(np.float32)
            weights[path] = weight.T if path.endswith(".kernel") else weight
        return cls(config, weights, arrays["tokens"], arrays["logits"])

    def model(self) -> Decoder:
        return build(self.config, self.weights.__getitem__)


@pytest.fixture(params=sorted(path.stem for path in FOLDER.glob("*.npz")))
def golden(request) -> Golden:
    """Every golden model in turn."""
    return Golden.load(request.param)


@pytest.fixture(params=["llama_grouped_tied", "opt_untied"])
def family(request) -> Golden:
    """One model of each family."""
    return Golden.load(request.param)
