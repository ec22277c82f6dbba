import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gossamer.data import Tokenizer
from gossamer.loading.huggingface import load_huggingface

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path, llama):
    return llama.write_huggingface(tmp_path / "model")


@pytest.fixture
def sharded(tmp_path, llama):
    return llama.write_huggingface(tmp_path / "model", shards=3)


def check_equal(checkpoint, model):
    assert set(checkpoint.paths) == set(model.weights)
    for path, weight in model.weights.items():
        got = checkpoint.read(path)
        assert got.dtype == np.float32
        assert got.shape == checkpoint.tensors[path].shape
        np.testing.assert_array_equal(got, weight, err_msg=path)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", ["llama", "tied_llama", "biased_llama", "opt", "t5", "flan_t5"])
def test_float32_weights_come_back_exactly(tmp_path, request, name, shards):
    model = request.getfixturevalue(name)
    checkpoint = load_huggingface(model.write_huggingface(tmp_path / "model", shards=shards))
    assert checkpoint.config == model.config
    check_equal(checkpoint, model)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(tmp_path, llama, dtype):
    rounded = {path: weight.astype(dtype) for path, weight in llama.weights.items()}
    checkpoint = load_huggingface(llama.write_huggingface(tmp_path / "model", dtype=dtype))
    exact = {path: weight.astype(np.float32) for path, weight in rounded.items()}
    check_equal(checkpoint, dataclasses.replace(llama, weights=exact))


def test_kernels_are_laid_out_in_rows(folder):
    assert load_huggingface(folder).read("layers.0.mlp.up_proj.kernel").flags.c_contiguous


def test_the_config_and_the_tokenizer_come_with_the_model(tmp_path, llama):
    folder = llama.write_huggingface(tmp_path / "model", eos_token_id=7, my_field="kept")
    assert load_huggingface(folder).tokenizer is None
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "ab"],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.pre": "gpt-2",
    }
    for name, content in Tokenizer.from_gguf(metadata).to_files().items():
        (folder / name).write_bytes(content)
    checkpoint = load_huggingface(folder)
    assert checkpoint.hf_config["my_field"] == "kept"
    assert checkpoint.tokenizer.encode("abb") == [2, 1]
    assert checkpoint.tokenizer.eos_ids == {7}
    assert checkpoint.source["name"] == "model"


@pytest.mark.parametrize(
    "spare", ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
)
def test_tensors_that_are_stored_by_habit_are_passed_over(tmp_path, tied_llama, spare):
    folder = tied_llama.write_huggingface(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, spare: np.ones(3, np.float32)}, folder / "model.safetensors")
    check_equal(load_huggingface(folder), tied_llama)


@pytest.mark.parametrize(
    "spare",
    [
        *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    ],
)
def test_tensors_that_t5_has_twice_are_passed_over(tmp_path, t5, spare):
    folder = t5.write_huggingface(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {spare: tensors["shared.weight"].copy()}, folder / "model.safetensors")
    check_equal(load_huggingface(folder), t5)


def test_a_t5_that_calls_itself_tied_and_has_two_matrices_is_untied(tmp_path, flan_t5):
    # What transformers 5 writes for Flan-T5.
    folder = flan_t5.write_huggingface(tmp_path / "model", tie_word_embeddings=True)
    checkpoint = load_huggingface(folder)
    check_equal(checkpoint, flan_t5)
    assert checkpoint.config == flan_t5.config
    assert checkpoint.hf_config["tie_word_embeddings"] is False


def test_all_faults_of_the_tensors_are_reported_together(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.extra.weight"] = np.ones((2, 3), np.float32)
    tensors["lm_head.weight"] = np.ones((2, 64), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="the tensors are not those of its config") as caught:
        load_huggingface(folder)
    message = str(caught.value)
    assert "1 missing (model.norm.weight (64,))" in message
    assert "1 unknown (model.extra.weight (2, 3))" in message
    assert "1 of another shape (lm_head.weight (2, 64) instead of (262, 64))" in message


def test_a_long_list_of_faults_is_cut(folder):
    save_file({"x": np.ones(10**5, np.float32)}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"12 missing \(.* and 6 more\); 1 unknown"):
        load_huggingface(folder)


@pytest.mark.parametrize("field", ["num_hidden_layers", "vocab_size", "intermediate_size"])
def test_a_config_that_claims_more_than_there_is_is_refused(tmp_path, llama, field):
    folder = llama.write_huggingface(tmp_path / "model", **{field: 10**12})
    with pytest.raises(ValueError, match=r"its config claims 1?6?4?0*.* for \w+, but its tensors"):
        load_huggingface(folder)


def test_positions_that_are_not_there_are_refused(tmp_path, opt):
    folder = opt.write_huggingface(tmp_path / "model", max_position_embeddings=10**12)
    with pytest.raises(ValueError, match=f"claims {16 * 10**12} for positions"):
        load_huggingface(folder)


def test_weights_that_are_quantized_already_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].astype(np.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head.weight and 0 more are int8; .* not quantized"):
        load_huggingface(folder)


def edit_index(folder, edit):
    index = json.loads((folder / INDEX).read_text())
    edit(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "home",
    ["../model.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "..\\b.safetensors"],
)
def test_names_that_climb_out_of_the_folder_are_refused(sharded, home):
    edit_index(sharded, lambda index: index["weight_map"].update({"model.norm.weight": home}))
    with pytest.raises(ValueError, match="which is not in the folder itself"):
        load_huggingface(sharded)


def test_a_shard_that_is_missing_is_named(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00003.safetensors cannot be read"):
        load_huggingface(sharded)


def test_an_index_that_points_to_the_wrong_shard_is_refused(sharded):
    home = "model-00001-of-00003.safetensors"
    edit_index(sharded, lambda index: index["weight_map"].update(nothing=home))
    with pytest.raises(ValueError, match=f"says that nothing is in {home}, which does not have it"):
        load_huggingface(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    homes = json.loads((sharded / INDEX).read_text())["weight_map"]
    first, second = sorted(set(homes.values()))[:2]
    both = {**load_file(sharded / second), "model.norm.weight": np.ones(64, np.float32)}
    save_file(both, sharded / second)
    save_file({**load_file(sharded / first), **both}, sharded / first)
    with pytest.raises(ValueError, match="tensors that are in several shards"):
        load_huggingface(sharded)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_without_a_map_is_refused(sharded, index):
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="needs a weight_map from tensors to files"):
        load_huggingface(sharded)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused_by_name(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_huggingface(folder)


def test_pickles_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: a pickle of PyTorch"):
        load_huggingface(folder)


def test_a_folder_without_weights_or_config_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has neither model.safetensors nor"):
        load_huggingface(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        load_huggingface(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "must hold a JSON object"), ("{}", "model_type None")],
)
def test_a_config_that_is_none_is_refused(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_huggingface(folder)
