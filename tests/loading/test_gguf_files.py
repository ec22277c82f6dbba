import dataclasses

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from gossamer.loading.gguf_files import gguf_key, load_gguf
from gossamer.nn.rotary import Llama3Scaling, Rotary

WRITABLE = [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]


def check_equal(checkpoint, model):
    assert set(checkpoint.paths) == set(model.weights)
    for path, weight in model.weights.items():
        got = checkpoint.read(path)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, weight, err_msg=path)


@pytest.mark.parametrize("name", ["llama", "tied_llama", "biased_llama"])
def test_float32_weights_come_back_exactly(tmp_path, request, name):
    model = request.getfixturevalue(name)
    checkpoint = load_gguf(model.write_gguf(tmp_path / "tiny.gguf"))
    assert checkpoint.config == model.config
    check_equal(checkpoint, model)


@pytest.mark.parametrize("kind", WRITABLE, ids=lambda kind: kind.name)
def test_every_type_that_can_be_written_is_decoded(tmp_path, llama, kind):
    quantized = ["layers.0.attention.q_proj.kernel", "layers.1.mlp.down_proj.kernel"]
    path = llama.write_gguf(tmp_path / "tiny.gguf", kinds=dict.fromkeys(quantized, kind))
    checkpoint = load_gguf(path)
    for name in quantized:
        want = gguf.quants.dequantize(gguf.quants.quantize(llama.in_rows(name), kind), kind)
        # Quantized along `in`, so that the order of the rows does not matter.
        np.testing.assert_array_equal(checkpoint.read(name), want.T)
    np.testing.assert_array_equal(
        checkpoint.read("layers.0.mlp.up_proj.kernel"),
        llama.weights["layers.0.mlp.up_proj.kernel"],
    )


def test_only_the_tensor_asked_for_is_decoded(tmp_path, llama, monkeypatch):
    checkpoint = load_gguf(llama.write_gguf(tmp_path / "tiny.gguf"))
    decoded = []

    def spy(data, kind):
        decoded.append(data.shape)
        return gguf.quants.dequantize(data, kind)

    monkeypatch.setattr("gossamer.loading.gguf_files.dequantize", spy)
    checkpoint.read("layers.1.mlp.down_proj.kernel")
    assert len(decoded) == 1


def test_the_tokenizer_and_the_ends_come_with_the_model(tmp_path, llama):
    checkpoint = load_gguf(llama.write_gguf(tmp_path / "tiny.gguf"))
    assert checkpoint.tokenizer.encode("a a", add_special=True) == [1, 261, 261]
    assert checkpoint.hf_config["eos_token_id"] == 2
    assert checkpoint.source["name"] == "tiny"
    assert checkpoint.source["format"] == "gguf"


def test_rotary_base_and_epsilon_lose_nothing_to_float32(tmp_path, llama):
    config = dataclasses.replace(llama.config, rotary=Rotary(theta=1e5), norm_epsilon=1e-6)
    path = dataclasses.replace(llama, config=config).write_gguf(tmp_path / "tiny.gguf")
    assert load_gguf(path).config == config


def test_scaling_of_llama3_is_found_from_its_table(tmp_path, llama):
    scaling = Llama3Scaling(
        factor=32.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_positions=8192
    )
    plain = Rotary(theta=5e5).frequencies(16)
    config = dataclasses.replace(llama.config, rotary=Rotary(theta=5e5, scaling=scaling))
    table = (plain / scaling.apply(plain)).astype(np.float32)
    weights = {**llama.weights, "rope_freqs.weight": table}
    path = type(llama)(config, weights).write_gguf(tmp_path / "scaled.gguf")
    assert load_gguf(path).config == config
    table[-2] *= 1.5
    path = type(llama)(config, weights).write_gguf(tmp_path / "odd.gguf")
    with pytest.raises(ValueError, match=r"rope_freqs.weight \(8,\) is not the scaling of Llama 3"):
        load_gguf(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split.count": 3}, "is one of 3 parts; join them first: `llama-gguf-split --merge"),
        ({"llama.expert_count": 8}, "llama.expert_count must be 0, got 8"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type must be 'none', got 'yarn'"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count must be 16, got 8"),
        ({"llama.attention.key_length": 32}, "of another shape .*attn_q.weight"),
        ({"tokenizer.ggml.pre": "x", "general.alignment": 12}, "general.alignment is 12"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, llama, keys, message):
    keys = {"llama.attention.value_length": keys.get("llama.attention.key_length", 16), **keys}
    path = llama.write_gguf(tmp_path / "tiny.gguf", keys=keys)
    with pytest.raises(ValueError, match=message):
        load_gguf(path)


def test_another_architecture_is_refused(tmp_path, llama):
    path = llama.write_gguf(tmp_path / "tiny.gguf", architecture="qwen2")
    with pytest.raises(ValueError, match=r"general.architecture 'qwen2'; only 'llama' is"):
        load_gguf(path)


def test_missing_and_unknown_tensors_are_reported_together(tmp_path, llama):
    weights = {path: w for path, w in llama.weights.items() if path != "layers.1.mlp_norm.scale"}
    weights["layers.7.mlp_norm.scale"] = llama.weights["norm.scale"]
    path = type(llama)(llama.config, weights).write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(
        ValueError, match=r"1 missing \(blk.1.ffn_norm.weight \(64,\)\); 1 unknown \(blk.7.ffn_norm"
    ):
        load_gguf(path)


def test_a_type_that_the_gguf_package_cannot_decode_is_named(tmp_path, llama):
    name = "layers.0.mlp.up_proj.kernel"
    path = llama.write_gguf(tmp_path / "tiny.gguf", kinds={name: Kind.F16})
    data = bytearray(path.read_bytes())
    at = data.index(gguf_key(name).encode()) + len(gguf_key(name)) + 4 + 2 * 8
    assert data[at] == Kind.F16
    data[at] = Kind.I16  # as many bytes
    path.write_bytes(data)
    with pytest.raises(ValueError, match="type I16, which the gguf package cannot dequantize"):
        load_gguf(path)


@pytest.mark.parametrize("name", ["nowhere.gguf", "."])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be read"):
        load_gguf(tmp_path / name)
