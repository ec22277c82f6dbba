import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from gossamer.loading import load, load_gguf, load_huggingface, load_saved, save
from gossamer.packing import Packed, pack
from gossamer.quantization import Int, Quantized
from gossamer.sparsity import NM

KERNEL = "layers.1.mlp.up_proj.kernel"


@pytest.fixture
def dense(tmp_path, llama):
    return load_gguf(llama.write_gguf(tmp_path / "tiny.gguf"))


def packed_kernel(kernel):
    pattern, form = NM(2, 4), Int(bits=4, group=32)
    mask = pattern.mask(jnp.abs(kernel), axis=0)
    return pack(form.encode(jnp.where(mask, kernel, 0)), format=form, pattern=pattern, mask=mask)


def test_a_dense_model_comes_back_exactly(tmp_path, dense, llama):
    save(dense, tmp_path / "saved")
    checkpoint = load_saved(tmp_path / "saved")
    assert checkpoint.config == dense.config
    assert checkpoint.hf_config == dense.hf_config
    assert checkpoint.paths == dense.paths
    for path, weight in llama.weights.items():
        got = checkpoint.read(path)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, weight, err_msg=path)
    assert checkpoint.tokenizer.encode("a a") == dense.tokenizer.encode("a a")
    assert checkpoint.tokenizer.eos_ids == dense.tokenizer.eos_ids
    assert checkpoint.source["name"] == "saved"


def test_packed_weights_come_back_bit_for_bit(tmp_path, dense):
    packed = packed_kernel(dense.read(KERNEL))
    save(dense.with_tensors({KERNEL: packed}), tmp_path / "saved")
    got = load_saved(tmp_path / "saved").read(KERNEL)
    assert isinstance(got, Packed)
    for name in ("values", "indices", "scales"):
        np.testing.assert_array_equal(getattr(got, name), getattr(packed, name))
    np.testing.assert_array_equal(got.materialize(), packed.materialize())


def test_recipe_and_origin_are_kept(tmp_path, dense):
    recipe = {"name": "mine", "rules": []}
    save(dataclasses.replace(dense, recipe=recipe), tmp_path / "saved")
    assert load_saved(tmp_path / "saved").recipe == recipe
    description = json.loads((tmp_path / "saved" / "gossamer.json").read_text())
    assert description["provenance"] == dense.source


def test_every_block_has_a_file_of_its_own(tmp_path, dense):
    save(dense, tmp_path / "saved")
    names = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(file.name for file in (tmp_path / "saved").glob("*.safetensors")) == names
    last = [name for name in load_file(tmp_path / "saved" / names[2]) if "_padding" not in name]
    assert last
    assert all(name.startswith("layers.1.") for name in last)


def test_saving_twice_gives_the_same_bytes(tmp_path, dense):
    save(dense, tmp_path / "a")
    save(dense, tmp_path / "b")
    contents = [
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"
    ]
    assert contents[0] == contents[1]


def test_a_folder_that_exists_is_replaced_only_when_asked(tmp_path, dense, opt):
    save(dense, tmp_path / "saved")
    other = load_huggingface(opt.write_huggingface(tmp_path / "opt"))
    with pytest.raises(ValueError, match="saved exists; choose another, or allow overwriting"):
        save(other, tmp_path / "saved")
    assert load_saved(tmp_path / "saved").config == dense.config
    save(other, tmp_path / "saved", overwrite=True)
    assert load_saved(tmp_path / "saved").config == opt.config


def test_a_saved_model_can_replace_itself(tmp_path, dense, llama):
    save(dense, tmp_path / "saved")
    checkpoint = load_saved(tmp_path / "saved")
    save(checkpoint, tmp_path / "saved", overwrite=True)
    np.testing.assert_array_equal(
        load_saved(tmp_path / "saved").read(KERNEL), llama.weights[KERNEL]
    )


def test_a_failure_leaves_the_old_folder_whole(tmp_path, dense):
    save(dense, tmp_path / "saved")
    broken = dense.with_tensors({KERNEL: np.full((64, 96), np.nan, np.float32)})
    with pytest.raises(ValueError, match=rf"Weight {KERNEL} \(64, 96\) holds NaN or Inf"):
        save(broken, tmp_path / "saved", overwrite=True)
    assert np.isfinite(load_saved(tmp_path / "saved").read(KERNEL)).all()


def test_a_weight_without_a_layout_is_refused(tmp_path, dense):
    form = Int(bits=4, group=32)
    weight = Quantized(data=form.encode(jnp.asarray(dense.read(KERNEL))), format=form)
    with pytest.raises(ValueError, match=rf"{KERNEL} .* is a Quantized, which has no layout"):
        save(dense.with_tensors({KERNEL: weight}), tmp_path / "saved")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_changed_file_is_refused(tmp_path, dense, name):
    save(dense, tmp_path / "saved")
    path = tmp_path / "saved" / name
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    with pytest.raises(ValueError, match=f"checksum of .*{name} does not match"):
        load_saved(tmp_path / "saved")


def test_a_changed_weight_is_refused_when_it_is_read(tmp_path, dense):
    save(dense, tmp_path / "saved")
    path = tmp_path / "saved" / "model-00003-of-00003.safetensors"
    tensors = load_file(path)
    content = path.read_bytes()
    at = content.index(tensors[KERNEL].tobytes())
    path.write_bytes(content[:at] + b"\0\0\0\0" + content[at + 4 :])
    checkpoint = load_saved(tmp_path / "saved")
    checkpoint.read("layers.0.mlp.up_proj.kernel")
    with pytest.raises(ValueError, match=f"checksum .* {KERNEL}"):
        checkpoint.read(KERNEL)


def test_a_config_of_another_model_is_refused(tmp_path, dense):
    other = {**dense.hf_config, "num_hidden_layers": 3}
    save(dataclasses.replace(dense, hf_config=other), tmp_path / "saved")
    with pytest.raises(ValueError, match=r"9 missing \(layers.2.attention.k_proj.kernel"):
        load_saved(tmp_path / "saved")


def test_load_opens_it(tmp_path, dense):
    save(dense, tmp_path / "saved")
    assert load(tmp_path / "saved").source["format"] == "gossamer"
