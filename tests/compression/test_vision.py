"""Vision transformers through one-shot compression: methods, packing, the report, resuming."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gossamer
from gossamer.compression import Calibration, ImageCalibration, one_shot
from gossamer.compression.observe import input_statistics
from gossamer.inference.blockwise import begin
from gossamer.kernels import library
from gossamer.loading import load_saved, save
from gossamer.models import build, build_block
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.recipe import PRESETS, Recipe, Rule
from gossamer.sparsity import NM
from gossamer.weights import materialize
from tests.compression.tiny_model import in_memory, random_weights
from tests.compression.tiny_vit import CONFIG, PROCESSING, random_images, tiny_vit

BLOCKS = r"layers\..*\.kernel"
INT4 = Int(4, group=16, symmetric=False)
SPARSE = Recipe(name="2:4", rules=(Rule(path=BLOCKS, pattern=NM(2, 4)),))
DENSE4 = Recipe(name="int4", rules=(Rule(path=BLOCKS, weights=INT4),))
W8A8 = Recipe(name="w8a8", rules=(Rule(path=BLOCKS, weights=Int(8), activations=Int(8)),))
ATOL = 1e-5  # float32 sums of 128 products, in another order


@pytest.fixture(scope="module")
def tiny():
    return tiny_vit()


@pytest.fixture(scope="module")
def calibration():
    return ImageCalibration.from_images(random_images(24), PROCESSING, count=24, seed=0)


def logits_of(checkpoint, images):
    graph, state = nnx.split(build(checkpoint.config, checkpoint.read))
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.asarray(images))


def mean_error(report):
    return np.mean([kernel.output_error for kernel in report.kernels])


@pytest.mark.parametrize(
    ("recipe", "baseline", "method"),
    [
        (SPARSE, "magnitude", "wanda"),
        (SPARSE, "magnitude", "sparsegpt"),
        (DENSE4, "rtn", "gptq"),
        (DENSE4, "rtn", "awq"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_calibrated_methods_leave_less_error_than_their_baseline(
    tiny, calibration, recipe, baseline, method
):
    _, plain = one_shot(tiny, recipe, method=baseline, calibration=calibration)
    _, guided = one_shot(tiny, recipe, method=method, calibration=calibration)
    assert len(guided.kernels) == 6 * CONFIG.num_layers
    assert mean_error(guided) < mean_error(plain)


@pytest.mark.parametrize("method", ["awq", "smoothquant"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_rescaled_kernels_are_those_that_the_activation_allows(calibration, method, activation):
    config = dataclasses.replace(CONFIG, activation=activation)
    recipe = DENSE4 if method == "awq" else W8A8
    small, report = one_shot(tiny_vit(config), recipe, method=method, calibration=calibration)
    assert {f"layers.0.{name}_norm.bias" for name in ("attention", "mlp")} <= set(report.rescaled)
    changed = "layers.0.mlp.fc1.bias" in report.rescaled
    assert changed == (method == "awq" and activation == "relu")
    assert np.isfinite(logits_of(small, calibration.inputs)).all()


def test_the_statistics_are_those_of_the_images_in_the_block(tiny, calibration):
    flow = begin(tiny, jnp.asarray(calibration.inputs))
    block = build_block(tiny.config, tiny.read, 0)
    path = "attention.v_proj.kernel"
    inputs = np.asarray(block.attention_norm(flow), np.float64).reshape(-1, CONFIG.hidden_size)
    got = input_statistics(block, flow, [path])[path]
    np.testing.assert_allclose(got.gram, inputs.T @ inputs, rtol=1e-4, atol=1e-2)


def test_the_reported_error_is_that_of_the_block_s_own_product(tiny, calibration):
    small, report = one_shot(tiny, SPARSE, method="magnitude", calibration=calibration)
    path = "layers.0.attention.v_proj.kernel"
    block = build_block(tiny.config, tiny.read, 0)
    flow = begin(tiny, jnp.asarray(calibration.inputs))
    inputs = np.asarray(block.attention_norm(flow), np.float64).reshape(-1, CONFIG.hidden_size)
    dense = np.asarray(tiny.read(path), np.float64)
    change = np.asarray(materialize(small.read(path)), np.float64) - dense
    want = np.linalg.norm(inputs @ change) / np.linalg.norm(inputs @ dense)
    got = next(kernel.output_error for kernel in report.kernels if kernel.path == path)
    assert got == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("name", ["2:4-int4", "1:4-int4", "w8a8"])
def test_packed_kernels_give_the_logits_of_the_values_they_stand_for(
    tiny, calibration, tmp_path, name
):
    recipe = PRESETS[name]
    method = "smoothquant" if name == "w8a8" else "sparsegpt"
    kept, _ = one_shot(tiny, recipe, method=method, calibration=calibration, out=tmp_path / "a")
    kernels = [path for path in kept.paths if path.endswith(".kernel")]
    assert all(isinstance(kept.read(path), Packed) for path in kernels)
    assert {"patch_embedding.kernel", "head.kernel"} <= set(kernels)
    plain = kept.with_tensors({path: np.asarray(materialize(kept.read(path))) for path in kernels})
    got, want = (logits_of(each, calibration.inputs) for each in (kept, plain))
    # Inputs are rounded to 254 steps on the way: 0.025 was measured, of logits up to 2.4.
    atol = 0.1 if name == "w8a8" else ATOL
    np.testing.assert_allclose(got, want, atol=atol, rtol=0)
    dense = logits_of(tiny, calibration.inputs)
    assert np.abs(np.asarray(want) - np.asarray(dense)).max() > 1e-3
    floats = kept.with_activations(None)
    np.testing.assert_allclose(logits_of(floats, calibration.inputs), want, atol=ATOL, rtol=0)


@pytest.mark.skipif(library.why_unavailable() is not None, reason="no native kernels here")
def test_packed_models_run_by_the_native_kernels(tiny, calibration):
    small = gossamer.compress(tiny, "2:4-int4", calibration=calibration)
    graph, state = nnx.split(build(small.config, small.read))
    text = (
        jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        .lower(state, jnp.asarray(calibration.inputs))
        .as_text()
    )
    # A call is lowered once for each shape: patch embedding, projections, fc1, fc2, head.
    assert text.count(library.PRODUCT) == 5


def test_memory_and_folder_hold_the_same_model_and_it_comes_back(tiny, calibration, tmp_path):
    arguments = {"method": "sparsegpt", "calibration": calibration}
    in_folder, _ = one_shot(tiny, PRESETS["2:4-int4"], out=tmp_path / "a", **arguments)
    kept, _ = one_shot(tiny, PRESETS["2:4-int4"], **arguments)
    save(kept, tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes(), file.name
    again = load_saved(tmp_path / "b")
    assert again.image_processing == in_folder.image_processing == PROCESSING
    assert kept.source["calibration_images"] == "ramps"
    np.testing.assert_array_equal(
        logits_of(again, calibration.inputs), logits_of(kept, calibration.inputs)
    )


def test_an_interrupted_run_gives_the_same_bytes(tiny, calibration, tmp_path):
    def interrupt(_stage, _steps):
        done = iter(range(3))

        def advance():
            if next(done) == 1:
                raise KeyboardInterrupt

        return advance

    arguments = {"method": "awq", "calibration": calibration}
    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, DENSE4, out=tmp_path / "a", progress=interrupt, **arguments)
    one_shot(tiny, DENSE4, out=tmp_path / "a", **arguments)
    one_shot(tiny, DENSE4, out=tmp_path / "b", **arguments)
    for file in (tmp_path / "b").glob("*.safetensors"):
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes()


def test_the_report_holds_accuracy_and_calibration(tiny, tmp_path):
    images = random_images(20)
    _, report = one_shot(
        tiny,
        SPARSE,
        method="wanda",
        calibration=images,
        sequences=8,
        out=tmp_path / "a",
        evaluation=images,
    )
    assert report.calibration is not None
    assert (report.calibration["images"], report.calibration["count"]) == ("ramps", 8)
    assert report.perplexity is None
    assert report.accuracy is not None
    assert report.accuracy.images == 20
    assert report.accuracy.cross_entropy_before != report.accuracy.cross_entropy_after
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    text = (tmp_path / "a" / "report.md").read_text()
    assert "calibrated on 8 images from ramps, seed 0" in text
    assert f"accuracy {report.accuracy.before:.2%} before" in text


def test_calibration_images_are_drawn_by_the_seed_and_none_twice():
    images = random_images(12)
    draws = [
        ImageCalibration.from_images(images, PROCESSING, count=8, seed=seed) for seed in (0, 0, 1)
    ]
    assert draws[0].describe() == draws[1].describe() != draws[2].describe()
    assert len(np.unique(draws[0].inputs, axis=0)) == 8
    assert len(ImageCalibration.from_images(images, PROCESSING, count=64, seed=0).inputs) == 12
    with pytest.raises(ValueError, match="at least 1 image, got 0"):
        ImageCalibration.from_images(images, PROCESSING, count=0, seed=0)


def test_what_does_not_suit_the_model_is_told_before_any_weight_is_read(calibration):
    broken = tiny_vit().with_tensors({"norm.scale": np.full(64, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"'wanda' needs calibration images; give a folder"):
        one_shot(broken, SPARSE, method="wanda")
    tokens = Calibration(text="random", tokens=np.zeros((2, 8), np.int32))
    with pytest.raises(ValueError, match="continue a text, and a ViTConfig"):
        one_shot(broken, SPARSE, method="wanda", calibration=tokens)
    with pytest.raises(ValueError, match="got 8 x 8 pixels"):
        one_shot(broken, SPARSE, method="wanda", calibration="digits")
    other = ImageCalibration(images="other", inputs=np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(
        ValueError, match=r"channels \(8, 8, 1\), and the model takes \(12, 12, 1\)"
    ):
        one_shot(broken, SPARSE, method="wanda", calibration=other)
    with pytest.raises(ValueError, match="classify images, and a LlamaConfig"):
        one_shot(in_memory(random_weights()), SPARSE, method="wanda", calibration=calibration)
    with pytest.raises(ValueError, match="classify images, and a LlamaConfig"):
        one_shot(in_memory(random_weights()), SPARSE, evaluation=random_images(2), method="random")
