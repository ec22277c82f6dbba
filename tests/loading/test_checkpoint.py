import json

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.loading import load, load_huggingface, save
from gossamer.packing import pack
from gossamer.quantization import Int


@pytest.fixture
def checkpoint(tmp_path, llama):
    return load_huggingface(llama.write_huggingface(tmp_path / "model"))


def test_parameters_come_in_the_order_of_the_model(checkpoint):
    blocks = [int(path.split(".")[1]) for path in checkpoint.paths if path.startswith("layers.")]
    assert blocks == sorted(blocks)
    assert len(checkpoint.paths) == len(set(checkpoint.paths)) == 3 + 2 * 9


def test_a_name_that_is_no_parameter_is_refused_with_near_ones(checkpoint):
    with pytest.raises(ValueError, match=r"'layers.0.mlp.up.kernel'; near .*up_proj.kernel"):
        checkpoint.read("layers.0.mlp.up.kernel")


def test_replaced_weights_are_read_from_memory_and_others_from_the_file(checkpoint, llama):
    new = np.ones((64,), np.float32)
    replaced = checkpoint.with_tensors({"norm.scale": new})
    assert replaced.read("norm.scale") is new
    assert replaced.paths == checkpoint.paths
    for path in ("layers.0.mlp_norm.scale", "embedding.kernel"):
        np.testing.assert_array_equal(replaced.read(path), llama.weights[path])
    np.testing.assert_array_equal(checkpoint.read("norm.scale"), llama.weights["norm.scale"])


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        ("norm.scale", (63,), r"'norm.scale' \(63,\) replaces nothing: the model has \(64,\)"),
        ("norm.bias", (64,), r"'norm.bias' \(64,\) replaces nothing: .* no such parameter"),
    ],
)
def test_a_replacement_that_does_not_fit_is_refused(checkpoint, path, shape, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.with_tensors({path: np.ones(shape, np.float32)})


def test_a_model_without_a_tokenizer_says_where_to_put_one(checkpoint):
    with pytest.raises(ValueError, match=r"Model 'model' came without a tokenizer; put"):
        checkpoint.require_tokenizer()


def test_side_files_are_the_config_and_the_tokenizer(checkpoint, tmp_path, llama):
    assert list(checkpoint.side_files()) == ["config.json"]
    assert json.loads(checkpoint.side_files()["config.json"]) == dict(checkpoint.hf_config)


def test_inputs_of_quantized_kernels_take_the_format_that_is_asked_for(checkpoint, tmp_path):
    path, format = "layers.0.mlp.up_proj.kernel", Int(4, group=16)
    kernel = pack(format.encode(jnp.asarray(checkpoint.read(path))), format)
    compressed = checkpoint.with_tensors({path: kernel})
    save(compressed, tmp_path / "saved")
    for source in (compressed, load(tmp_path / "saved")):
        integers = source.with_activations(Int(8))
        assert integers.read(path).activations == Int(8)
        assert integers.with_activations(None).read(path).activations is None
        np.testing.assert_array_equal(integers.read(path).values, kernel.values)
        assert isinstance(integers.read("layers.0.mlp.down_proj.kernel"), np.ndarray)
    with pytest.raises(ValueError, match="symmetrically"):
        compressed.with_activations(Int(8, group=16))


def test_a_model_without_quantized_kernels_takes_no_format_of_inputs(checkpoint):
    with pytest.raises(ValueError, match="no quantized kernels"):
        checkpoint.with_activations(Int(8))
