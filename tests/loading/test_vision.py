"""Vision transformers on disk: read, exported, saved, and how their images are prepared."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from gossamer.data import ImageProcessing
from gossamer.loading import export_dense, load, load_huggingface, load_saved, save
from gossamer.models import build
from gossamer.packing import pack
from gossamer.quantization import Int
from tests.loading.vision import HUGGINGFACE, TIMM, arrays_of, write_folder

ATOL = 1e-5  # float32 sums in another order


def logits_of(checkpoint, images):
    return np.asarray(build(checkpoint.config, checkpoint.read)(jnp.asarray(images)))


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_a_folder_of_transformers_gives_its_logits(tmp_path, name):
    images, want = write_folder(tmp_path / "model", name)
    checkpoint = load(tmp_path / "model")
    assert checkpoint.source["format"] == "huggingface"
    np.testing.assert_allclose(logits_of(checkpoint, images), want, atol=ATOL, rtol=0)


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_an_export_has_the_names_and_shapes_that_transformers_wrote(tmp_path, name):
    write_folder(tmp_path / "model", name)
    checkpoint = load(tmp_path / "model")
    export_dense(checkpoint, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    want = load_file(tmp_path / "model" / "model.safetensors")
    assert written.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)
    again = load(tmp_path / "out")
    assert (again.config, again.image_processing) == (
        checkpoint.config,
        checkpoint.image_processing,
    )


def test_an_export_of_timm_with_a_class_token_is_one_of_transformers(tmp_path):
    images, want = write_folder(tmp_path / "model", "timm_class_token")
    export_dense(load(tmp_path / "model"), tmp_path / "out")
    again = load_huggingface(tmp_path / "out")
    assert again.hf_config["model_type"] == "vit"
    np.testing.assert_allclose(logits_of(again, images), want, atol=ATOL, rtol=0)


@pytest.mark.parametrize("name", [*HUGGINGFACE, *TIMM])
def test_saved_models_come_back_bit_for_bit(tmp_path, name):
    write_folder(tmp_path / "model", name)
    checkpoint = load(tmp_path / "model")
    path, format = "layers.0.mlp.fc1.kernel", Int(4, group=16)
    kernel = pack(format.encode(jnp.asarray(checkpoint.read(path))), format)
    save(checkpoint.with_tensors({path: kernel}), tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.config == checkpoint.config
    assert again.image_processing == checkpoint.image_processing is not None
    for other in checkpoint.paths:
        if other != path:
            np.testing.assert_array_equal(again.read(other), checkpoint.read(other), err_msg=other)
    np.testing.assert_array_equal(again.read(path).materialize(), kernel.materialize())


def test_how_images_are_prepared_is_read_beside_the_config(tmp_path):
    write_folder(tmp_path / "model", "vit_grey")
    want = ImageProcessing(size=(8, 8), mean=(0.5,), std=(0.25,), resample="bicubic")
    assert load(tmp_path / "model").require_image_processing() == want
    write_folder(tmp_path / "other", "vit_grey", processing=False)
    with pytest.raises(ValueError, match=r"'other' does not tell how .* preprocessor_config.json"):
        load(tmp_path / "other").require_image_processing()


def test_images_of_another_size_than_the_model_s_are_refused(tmp_path):
    write_folder(tmp_path / "model", "vit_grey")
    file = tmp_path / "model" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "size": 16}))
    with pytest.raises(ValueError, match=r"channels \(16, 16, 1\), and its config.json takes \(8"):
        load(tmp_path / "model")


def test_a_changed_preprocessor_of_a_saved_model_is_noticed(tmp_path):
    write_folder(tmp_path / "model", "vit_grey")
    save(load(tmp_path / "model"), tmp_path / "saved")
    file = tmp_path / "saved" / "preprocessor_config.json"
    file.write_text(file.read_text().replace("0.5", "0.4"))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        load_saved(tmp_path / "saved")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_channels": 64}, "claims 8192 for patch_embedding|of another shape"),
        ({"image_size": 1 << 16}, "claims 34359738368 for positions"),
        ({"id2label": None, "num_labels": 1 << 20}, "claims 33554432 for head"),
        ({"num_hidden_layers": 3}, "16 missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_claims_more_than_the_tensors_hold_is_refused(tmp_path, fields, message):
    write_folder(tmp_path / "model", "vit_grey", **fields)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model")


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", [*HUGGINGFACE, "timm_class_token"])
def test_transformers_computes_our_logits(tmp_path, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    images, want = write_folder(tmp_path / "model", name)
    export_dense(load(tmp_path / "model"), tmp_path / "out")
    model = transformers.AutoModelForImageClassification.from_pretrained(str(tmp_path / "out"))
    with torch.no_grad():
        got = model(torch.asarray(images).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
def test_transformers_refuses_what_pools_by_the_mean(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_folder(tmp_path / "model", "timm_mean_pooled")
    export_dense(load(tmp_path / "model"), tmp_path / "out")
    with pytest.raises(ValueError, match="gossamer-vit"):
        transformers.AutoModelForImageClassification.from_pretrained(str(tmp_path / "out"))
    images, logits = (arrays_of("timm_mean_pooled")[name] for name in ("images", "logits"))
    np.testing.assert_allclose(logits_of(load(tmp_path / "out"), images), logits, atol=ATOL)
