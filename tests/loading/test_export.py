import dataclasses
import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from gossamer.loading import export, export_dense, load_gguf, load_huggingface
from gossamer.models import T5Inputs, build
from gossamer.quantization import Int, Quantized

KERNEL = "layers.1.mlp.up_proj.kernel"


@pytest.fixture
def dense(tmp_path, llama):
    return load_gguf(llama.write_gguf(tmp_path / "tiny.gguf"))


def test_a_folder_comes_back_exactly(tmp_path, dense, llama):
    export_dense(dense, tmp_path / "out")
    checkpoint = load_huggingface(tmp_path / "out")
    assert checkpoint.config == dense.config
    for path, weight in llama.weights.items():
        np.testing.assert_array_equal(checkpoint.read(path), weight, err_msg=path)
    assert checkpoint.tokenizer.encode("a a") == dense.tokenizer.encode("a a")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "tiny.gguf"]


def test_names_are_those_of_the_model_alone(tmp_path, dense):
    export_dense(dense, tmp_path / "out")
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert len(names) == len(dense.paths)
    assert names["model.layers.1.mlp.up_proj.weight"].shape == (96, 64)


def test_bfloat16_rounds_every_weight(tmp_path, dense, llama):
    export_dense(dense, tmp_path / "out", "bfloat16")
    checkpoint = load_huggingface(tmp_path / "out")
    want = llama.weights[KERNEL].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(checkpoint.read(KERNEL), want)
    assert checkpoint.hf_config["torch_dtype"] == "bfloat16"


def test_compressed_weights_are_written_as_the_values_they_stand_for(tmp_path, dense):
    form = Int(bits=4, group=32)
    weight = Quantized(data=form.encode(jnp.asarray(dense.read(KERNEL))), format=form)
    export_dense(dense.with_tensors({KERNEL: weight}), tmp_path / "out")
    got = load_huggingface(tmp_path / "out").read(KERNEL)
    np.testing.assert_array_equal(got, weight.materialize())


def test_a_large_model_is_written_in_several_files(tmp_path, dense, llama, monkeypatch):
    monkeypatch.setattr(export, "MOST_BYTES", 100_000)
    export_dense(dense, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 110_000
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * w.size for w in llama.weights.values())
    checkpoint = load_huggingface(tmp_path / "out")
    for path, weight in llama.weights.items():
        np.testing.assert_array_equal(checkpoint.read(path), weight, err_msg=path)


def test_a_folder_that_exists_is_replaced_only_when_asked(tmp_path, dense):
    export_dense(dense, tmp_path / "out")
    with pytest.raises(ValueError, match="out exists; choose another, or allow overwriting"):
        export_dense(dense, tmp_path / "out")
    export_dense(dense, tmp_path / "out", "bfloat16", overwrite=True)
    assert load_huggingface(tmp_path / "out").hf_config["torch_dtype"] == "bfloat16"


def test_a_folder_of_something_else_is_never_replaced(tmp_path, dense):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is no model folder"):
        export_dense(dense, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear"


def test_a_failure_leaves_the_old_folder_whole_and_nothing_else(tmp_path, dense, llama):
    export_dense(dense, tmp_path / "out")

    def fail():
        raise OSError("disk full")

    tensors = {**dense.tensors, KERNEL: dataclasses.replace(dense.tensors[KERNEL], read=fail)}
    broken = dataclasses.replace(dense, tensors=tensors)
    with pytest.raises(OSError, match="disk full"):
        export_dense(broken, tmp_path / "out", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "tiny.gguf"]
    np.testing.assert_array_equal(
        load_huggingface(tmp_path / "out").read(KERNEL), llama.weights[KERNEL]
    )


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, dense, monkeypatch):
    export_dense(dense, tmp_path / "out")
    rename = export.os.rename

    def fail_once(source, target):
        if "partial" in str(source):
            raise OSError("no room in the directory")
        rename(source, target)

    monkeypatch.setattr(export.os, "rename", fail_once)
    with pytest.raises(OSError, match="no room"):
        export_dense(dense, tmp_path / "out", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "tiny.gguf"]
    assert load_huggingface(tmp_path / "out").config == dense.config


def test_an_unknown_dtype_is_refused(tmp_path, dense):
    with pytest.raises(ValueError, match=r"\['float32', 'bfloat16'\], got dtype 'float8'"):
        export_dense.__wrapped__(dense, tmp_path / "out", "float8")


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["llama", "tied_llama", "biased_llama", "opt"])
def test_transformers_computes_our_logits(tmp_path, request, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = request.getfixturevalue(name)
    checkpoint = load_huggingface(model.write_huggingface(tmp_path / "in"))
    export_dense(checkpoint, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    tokens = np.random.default_rng(0).integers(0, checkpoint.config.vocab_size, (2, 17))
    with torch.no_grad():
        want = theirs(torch.asarray(tokens)).logits.numpy()
    got = build(checkpoint.config, checkpoint.read)(jnp.asarray(tokens))
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["t5", "flan_t5"])
def test_transformers_computes_our_logits_of_an_encoder_decoder(tmp_path, request, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = request.getfixturevalue(name)
    checkpoint = load_huggingface(model.write_huggingface(tmp_path / "in"))
    export_dense(checkpoint, tmp_path / "out")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "out"))
    source, target = np.random.default_rng(0).integers(2, checkpoint.config.vocab_size, (2, 2, 17))
    with torch.no_grad():
        tokens = {"input_ids": torch.asarray(source), "decoder_input_ids": torch.asarray(target)}
        want = theirs(**tokens).logits.numpy()
    inputs = T5Inputs.of(jnp.asarray(source), jnp.asarray(target))
    got = build(checkpoint.config, checkpoint.read)(inputs)
    np.testing.assert_allclose(got, want, atol=1e-4)
