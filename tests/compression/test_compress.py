"""The front door: models and pytrees, the report, perplexity before and after."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

import gossamer
from gossamer.compression import Evaluation, compress_pytree, one_shot
from gossamer.packing import Packed, model_bytes
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from tests.compression.tiny_model import CONFIG

RECIPE = Recipe(
    name="2:4-int4",
    rules=(Rule(path=r"layers\..*\.kernel", pattern=NM(2, 4), weights=Int(4, group=16)),),
)


def test_a_model_comes_back_packed_and_a_pytree_as_it_was(tiny, calibration):
    small = gossamer.compress(tiny, RECIPE, calibration=calibration)
    assert isinstance(small.read("layers.0.mlp.up_proj.kernel"), Packed)
    assert small.recipe == RECIPE.to_dict()
    model = eqx.nn.MLP(8, 8, 16, 2, key=jax.random.key(0))
    recipe = Recipe(rules=(Rule(path=r"layers\..*\.weight", pattern=NM(2, 4)),))
    got = gossamer.compress(model, recipe, reduction_axis=1)
    want = compress_pytree(model, recipe, reduction_axis=1)
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    np.testing.assert_array_equal(got(x), want(x))
    assert (np.asarray(got.layers[0].weight) == 0).mean() == 0.5


def test_a_pytree_with_a_calibration_text_is_refused():
    with pytest.raises(ValueError, match=r"type dict .* needs a model that gossamer\.load"):
        gossamer.compress({"w": np.ones((8, 8))}, RECIPE, calibration="builtin")


def test_the_report_holds_sizes_perplexities_errors_and_what_was_left_alone(
    tiny, calibration, tmp_path
):
    windows = np.random.default_rng(2).integers(0, CONFIG.vocab_size, (2, 16)).astype(np.int32)
    _, report = one_shot(
        tiny,
        RECIPE,
        calibration=calibration,
        out=tmp_path / "small",
        evaluation=Evaluation(text="random", tokens=windows),
    )
    written = json.loads((tmp_path / "small" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["bytes_on_disk"] == model_bytes(tmp_path / "small")
    assert written["bytes_float32"] == 4 * sum(np.prod(t.shape) for t in tiny.tensors.values())
    assert written["untouched"] == [p for p in tiny.paths if not p.startswith("layers.")] + [
        p for p in tiny.paths if p.startswith("layers.") and p.endswith("scale")
    ]
    assert written["perplexity"]["predictions"] == 2 * 15
    assert written["perplexity"]["before"] != written["perplexity"]["after"]
    assert written["method"] == "sparsegpt"
    kernels = {kernel["path"]: kernel for kernel in written["kernels"]}
    assert len(kernels) == 7 * CONFIG.num_layers
    # 3 bits a weight, and a float32 scale for each 16 of them.
    assert kernels["layers.0.mlp.up_proj.kernel"]["bits_per_weight"] == 3 + 32 / 16
    assert all(0 < kernel["output_error"] < 1 for kernel in kernels.values())
    assert "layers.2.mlp.down_proj.kernel" in (tmp_path / "small" / "report.md").read_text()
    for plot in ("report-errors.png", "report-sizes.png"):
        assert (tmp_path / "small" / plot).read_bytes().startswith(b"\x89PNG")
