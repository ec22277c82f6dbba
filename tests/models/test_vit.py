import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.models import (
    ViT,
    ViTConfig,
    build,
    config_from_hf,
    decoder_config,
    hf_key,
    hf_shape,
    parameter_shapes,
)
from gossamer.models.vit import patches
from gossamer.packing import Packed, pack
from gossamer.quantization import Int, Quantized
from gossamer.sparsity import NM

# float32 sums of 32 to 64 products of numbers near 1, in another order: errors near 1e-6.
ATOL = 1e-5

BASE = {  # the fields of google/vit-base-patch16-224's config.json that say what is computed
    "architectures": ["ViTForImageClassification"],
    "attention_probs_dropout_prob": 0.0,
    "encoder_stride": 16,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 768,
    "id2label": {str(index): f"class {index}" for index in range(1000)},
    "image_size": 224,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "model_type": "vit",
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "qkv_bias": True,
}
CONFIG = ViTConfig(
    image_size=(224, 224),
    patch_size=(16, 16),
    channels=3,
    hidden_size=768,
    intermediate_size=3072,
    num_layers=12,
    num_heads=12,
    num_classes=1000,
)


@functools.partial(jax.jit, static_argnums=0)
def run(graph, state, images):
    return nnx.merge(graph, state)(images)


def test_logits_equal_those_of_transformers(golden_vit):
    logits = run(*nnx.split(golden_vit.model()), jnp.asarray(golden_vit.images))
    np.testing.assert_allclose(logits, golden_vit.logits, atol=ATOL, rtol=0)


def test_images_of_a_batch_do_not_mix(golden_vit):
    alone = run(*nnx.split(golden_vit.model()), jnp.asarray(golden_vit.images[1:2]))
    np.testing.assert_allclose(alone[0], golden_vit.logits[1], atol=ATOL, rtol=0)


def test_every_pixel_influences_the_logits(golden_vit):
    model = golden_vit.model()
    gradient = jax.grad(lambda images: model(images)[:, 0].sum())(jnp.asarray(golden_vit.images))
    assert (np.asarray(gradient) != 0).all()


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_the_classifier_reads_what_is_pooled_alone(golden_vit, pooling):
    config = dataclasses.replace(golden_vit.config, pooling=pooling)
    model = build(config, golden_vit.weights.__getitem__)
    assert isinstance(model, ViT)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, config.num_patches + 1, 32)))
    gradient = jax.grad(lambda x: model.logits(x).sum())(tokens.astype(jnp.float32))
    read = np.abs(gradient).max(axis=(0, 2)) > 0
    assert read.tolist() == [(pooling == "class") == (index == 0) for index in range(len(read))]


def test_a_fused_block_gives_what_its_projections_give(golden_vit):
    block = golden_vit.model().layers[0]
    x = jax.random.normal(jax.random.key(0), (1, 5, 32))
    want = block.through(x)
    block.fuse()
    assert block.attention.qkv_proj is not None
    np.testing.assert_allclose(block.through(x), want, atol=ATOL)


def test_a_sublayer_is_what_the_block_adds(golden_vit):
    block = golden_vit.model().layers[0]
    x = jax.random.normal(jax.random.key(0), (1, 5, 32))
    half = x + block.sublayer("attention", block.attention_norm(x), x)
    whole = half + block.sublayer("mlp", block.mlp_norm(half), x)
    np.testing.assert_allclose(block.through(x), whole, atol=ATOL)


def quantize(kernel: jax.Array) -> Quantized:
    fmt = Int(8, group=4)
    return Quantized(fmt.encode(kernel), fmt)


def prune_and_pack(kernel: jax.Array) -> Packed:
    mask = NM(2, 4).mask(jnp.abs(kernel), axis=0)
    return pack(Int(4, group=4).encode(kernel * mask), Int(4, group=4), NM(2, 4), mask)


@pytest.mark.parametrize("compress", [quantize, prune_and_pack])
def test_compressed_kernels_give_the_logits_of_the_values_they_stand_for(golden_vit, compress):
    kernels = {
        path: compress(jnp.asarray(weight))
        for path, weight in golden_vit.weights.items()
        if path.endswith(".kernel") and len(weight) >= 8  # patches of 4 pixels are not packed
    }
    assert "head.kernel" in kernels
    plain = {path: kernel.materialize() for path, kernel in kernels.items()}
    images = jnp.asarray(golden_vit.images)
    got, want = (
        run(
            *nnx.split(build(golden_vit.config, {**golden_vit.weights, **each}.__getitem__)), images
        )
        for each in (kernels, plain)
    )
    np.testing.assert_allclose(got, want, atol=ATOL, rtol=0)
    assert np.abs(want - golden_vit.logits).max() > 1e-3  # rounding shows


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_rescaled_inputs_leave_the_logits_as_they_are(golden_vit, activation):
    config = dataclasses.replace(golden_vit.config, activation=activation)
    weights = dict(golden_vit.weights)
    draw = np.random.default_rng(0)
    pairs = ViT.block_class("layers.0").rescalable(config)
    assert len(pairs) == (4 if activation == "relu" else 3)
    for pair in pairs:
        kernels = [f"layers.0.{name}.kernel" for name in pair.projections]
        factors = draw.uniform(0.5, 2, len(weights[kernels[0]])).astype(np.float32)
        for leaf in ("scale" if pair.norm else "kernel", "bias"):
            if (path := f"layers.0.{pair.source}.{leaf}") in weights:
                weights[path] = weights[path] / factors
        weights |= {path: weights[path] * factors[:, None] for path in kernels}
    images = jnp.asarray(golden_vit.images)
    want = run(*nnx.split(build(config, golden_vit.weights.__getitem__)), images)
    np.testing.assert_allclose(
        run(*nnx.split(build(config, weights.__getitem__)), images), want, atol=ATOL
    )


def test_patches_are_those_of_a_convolution():
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.normal(size=(2, 6, 8, 3)), jnp.float32)
    kernel = jnp.asarray(draw.normal(size=(5, 3, 3, 2)), jnp.float32)  # [out, C, rows, columns]
    want = jax.lax.conv_general_dilated(
        images, kernel, (3, 2), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    got = patches(images, (3, 2)) @ kernel.reshape(5, -1).T
    np.testing.assert_allclose(got, want.reshape(2, -1, 5), atol=ATOL)


def test_images_of_another_size_are_refused(golden_vit):
    message = r"takes images of 8 x . pixels and . channels as \[B, H, W, C\], got \(1, 9, 8, 2\)"
    with pytest.raises(ValueError, match=message):
        golden_vit.model()(jnp.zeros((1, 9, 8, 2)))


def test_a_config_of_transformers_is_read():
    assert ViTConfig.from_hf(BASE) == CONFIG
    assert CONFIG.head_dim == 64
    assert CONFIG.num_patches == 196


def test_absent_fields_take_the_defaults_of_transformers():
    two = dataclasses.replace(CONFIG, num_classes=2)
    assert ViTConfig.from_hf({"model_type": "vit"}) == two
    assert ViTConfig.from_hf({"model_type": "vit", "num_labels": 1000}) == CONFIG


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_layers": 0},
        {"image_size": (32, 48), "patch_size": (8, 4)},
        {"qkv_bias": False, "activation": "quick_gelu", "pooling": "mean"},
    ],
    ids=str,
)
def test_written_configs_read_back_equal(changes):
    config = dataclasses.replace(CONFIG, **changes)
    assert config_from_hf(config.to_hf()) == config


def test_every_field_reaches_the_config_file():
    other = ViTConfig(
        image_size=(32, 64),
        patch_size=(8, 16),
        channels=1,
        hidden_size=24,
        intermediate_size=41,
        num_layers=3,
        num_heads=6,
        num_classes=10,
        norm_epsilon=1e-6,
        qkv_bias=False,
        activation="relu",
        pooling="mean",
    )
    for field in dataclasses.fields(ViTConfig):
        changed = dataclasses.replace(CONFIG, **{field.name: getattr(other, field.name)})
        assert changed.to_hf() != CONFIG.to_hf(), field.name


def test_every_parameter_has_its_own_name_and_shape_at_hugging_face():
    shapes = parameter_shapes(CONFIG)
    names = {hf_key(CONFIG, path): hf_shape(CONFIG, path) for path in shapes}
    assert len(names) == len(shapes) == 12 * 16 + 8
    assert names["vit.embeddings.patch_embeddings.projection.weight"] == (768, 3, 16, 16)
    assert names["vit.embeddings.cls_token"] == (1, 1, 768)
    assert names["vit.embeddings.position_embeddings"] == (1, 197, 768)
    assert names["vit.encoder.layer.11.intermediate.dense.weight"] == (3072, 768)
    assert names["classifier.bias"] == (1000,)


def test_what_is_for_text_says_so():
    with pytest.raises(ValueError, match="language models that continue a text, and a ViTConfig"):
        decoder_config(CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["ViTModel"]}, r"architectures must be \['ViTForImageClassification'\]"),
        ({"hidden_act": "silu"}, "hidden_act must be 'gelu' or .*, got 'silu'"),
        ({"head_dim": 32}, "head_dim must be None or 64, got 32"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None, got"),
        ({"num_labels": 7}, "num_labels must be 1000, got 7"),
        ({"image_size": [224]}, r"image_size must be a whole number .* list of two, got \[224\]"),
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1 or"),
        ({"patch_size": 15}, r"multiple of patch_size, got \(224, 224\) and \(15, 15\)"),
        ({"num_attention_heads": 7}, "multiple of num_heads, got 768 and 7"),
        ({"qkv_bias": "no"}, "qkv_bias must be true or false, got 'no'"),
        ({"layer_norm_eps": 0}, "layer_norm_eps must be a positive number, got 0"),
        ({"pooling": "mean"}, "pooling must be None, got 'mean'"),
        ({"model_type": "deit"}, "model_type must be 'vit' or .*, got 'deit'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig.from_hf({**BASE, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError, match=r"cannot be used: hidden_act must .*; patch_size must"):
        ViTConfig.from_hf({**BASE, "hidden_act": "silu", "patch_size": "16"})
