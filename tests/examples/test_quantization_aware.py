"""The examples of quantization-aware training run, and what they train learns."""

import importlib.util
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["flax_nnx", "flax_linen"])
def test_someone_elses_model_learns_with_quantized_products(name):
    file = EXAMPLES / f"{name}_quantization_aware.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.train(60)
    assert losses[-1] < 0.7 * losses[0]
