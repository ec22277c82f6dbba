"""Vision transformers of timm: logits that timm computed, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.data import ImageProcessing
from gossamer.loading import load, load_timm
from gossamer.models import ViTConfig, build
from tests.loading.vision import TIMM, arrays_of, write_folder

# float32 sums of 32 to 64 products of numbers near 1, in another order: errors near 1e-6.
ATOL = 1e-5
NAME = "timm_class_token"


@pytest.mark.parametrize("name", TIMM)
def test_logits_equal_those_of_timm(tmp_path, name):
    images, want = write_folder(tmp_path / "model", name)
    checkpoint = load(tmp_path / "model")
    assert checkpoint.source["format"] == "timm"
    graph, state = nnx.split(build(checkpoint.config, checkpoint.read))
    got = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.asarray(images))
    np.testing.assert_allclose(got, want, atol=ATOL, rtol=0)


def test_sizes_come_from_the_tensors_and_the_config(tmp_path):
    write_folder(tmp_path / "model", "timm_mean_pooled")
    assert load_timm(tmp_path / "model").config == ViTConfig(
        image_size=(8, 8),
        patch_size=(2, 2),
        channels=1,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_classes=6,
        norm_epsilon=1e-6,
        qkv_bias=False,
        pooling="mean",
    )


@pytest.mark.parametrize(
    ("architecture", "hidden", "heads"),
    [("vit_tiny_patch4_8", 192, 3), ("deit_small_patch4_8", 384, 6)],
)
def test_the_heads_follow_from_the_name_of_the_size(tmp_path, architecture, hidden, heads):
    arrays = arrays_of(NAME)
    wide = {}
    for key, value in arrays.items():
        if key in ("config", "images", "logits"):
            continue
        times = [hidden // 32 if size in (32, 96) else 1 for size in value.shape]
        wide[key] = np.ascontiguousarray(np.tile(value, times))
    fields = {"architecture": architecture, "model_args": {"img_size": [8, 8]}}
    write_folder(tmp_path / "model", NAME, add=wide, **fields)
    assert load_timm(tmp_path / "model").config.num_heads == heads


def test_one_fused_tensor_is_three_of_ours(tmp_path):
    write_folder(tmp_path / "model", NAME)
    checkpoint = load_timm(tmp_path / "model")
    fused = arrays_of(NAME)["blocks.1.attn.qkv.weight"]
    parts = [checkpoint.read(f"layers.1.attention.{name}_proj.kernel") for name in "qkv"]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), fused.T)


def test_images_are_prepared_as_timm_says(tmp_path):
    write_folder(tmp_path / "model", NAME)
    half = (0.5, 0.5, 0.5)
    want = ImageProcessing(size=(8, 8), mean=half, std=half, resample="bicubic")
    assert load_timm(tmp_path / "model").image_processing == want
    write_folder(tmp_path / "other", NAME, pretrained_cfg={"input_size": [3, 8, 8]})
    assert load_timm(tmp_path / "other").image_processing is None


def test_names_of_labels_come_along(tmp_path):
    names = ["a", "b", "c", "d", "e", "f"]
    write_folder(tmp_path / "model", NAME, label_names=names)
    labels = load_timm(tmp_path / "model").hf_config["id2label"]
    assert [labels[str(index)] for index in range(6)] == names


ARGUMENTS = json.loads(str(arrays_of(NAME)["config"]))["model_args"]


def arguments(**changes):
    return {"fields": {"model_args": {**ARGUMENTS, **changes}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add": {"blocks.0.ls1.gamma": np.ones(32, np.float32)}}, r"LayerScale is not supp.*ls1"),
        (
            {"add": {"blocks.0.attn.q_norm.weight": np.ones(8, np.float32)}},
            "norms of queries and keys is not supported",
        ),
        ({"add": {"reg_token": np.ones((1, 4, 32), np.float32)}}, "registers is not supported"),
        ({"add": {"norm_pre.weight": np.ones(32, np.float32)}}, "in front of the blocks is not"),
        ({"drop": ["cls_token"]}, "needs a class token"),
        ({"drop": ["blocks.1.norm1.bias"]}, r"1 missing \(blocks.1.norm1.bias \(32,\)\)"),
        ({"drop": ["patch_embed.proj.weight"]}, r"proj.weight must be \[D, C, P, P\], got \(\)"),
        ({"fields": {"architecture": "resnet50"}}, "architecture must be .*, got 'resnet50'"),
        (
            {"fields": {"architecture": "vit_base_patch16_clip_224"}},
            "got 'vit_base_patch16_clip_224'",
        ),
        ({"fields": {"num_classes": 0}}, "num_classes must be a whole number of at least 1, got 0"),
        (arguments(dynamic_img_size=True), "dynamic_img_size must be False, got True"),
        (arguments(no_embed_class=True), "no_embed_class must be False, got True"),
        (arguments(init_values=1e-5), "init_values must be None, got 1e-05"),
        (arguments(norm_layer="rmsnorm"), "norm_layer is not supported, got 'rmsnorm'"),
        (arguments(act_layer="silu"), "act_layer must be one of .*, got 'silu'"),
        (arguments(global_pool="map"), "global_pool must be 'token' or 'avg', got 'map'"),
        (arguments(num_heads=None), "num_heads must tell the heads of a model of this size"),
        (arguments(img_size=[12, 12]), r"of another shape \(pos_embed \(1, 5, 32\) instead of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, change, message):
    options = {name: value for name, value in change.items() if name != "fields"}
    write_folder(tmp_path / "model", NAME, **options, **change.get("fields", {}))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model")


def test_all_faults_are_reported_together(tmp_path):
    change = arguments(dynamic_img_size=True, act_layer="silu")["fields"]
    write_folder(tmp_path / "model", NAME, **change)
    with pytest.raises(ValueError, match=r"dynamic_img_size must be False.*; act_layer must be"):
        load(tmp_path / "model")
