"""The walk over a model's blocks: order, errors, interruption, equal bytes."""

import hashlib
import importlib
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gossamer.compression import (
    AWQ,
    GPTQ,
    OBR,
    Calibration,
    SmoothQuant,
    WandaGPTQ,
    one_shot,
    sparsegpt,
    wanda_mask,
)
from gossamer.compression.observe import input_statistics
from gossamer.loading import load_saved, save
from gossamer.models import build
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Channel
from gossamer.weights import materialize
from tests.compression.tiny_model import CONFIG, in_memory

WALK = importlib.import_module("gossamer.compression.one_shot")  # a function has its name too
INT4 = Int(4, group=16, scale="bfloat16")
RECIPE = Recipe(
    name="2:4-int4",
    rules=(
        Rule(path=r"layers\..*\.kernel", pattern=NM(2, 4), weights=INT4),
        Rule(path=r"embedding\.kernel", weights=Int(8)),
    ),
)
DENSE4 = Rule(path=r"layers\..*\.kernel", weights=Int(4, group=16, symmetric=False))
SPARSE = Recipe(name="2:4", rules=(Rule(path=r"layers\..*\.kernel", pattern=NM(2, 4)),))


def digest(folder):
    """All bytes of the model's files; the report tells times, so it is left out."""
    files = sorted(f for f in folder.iterdir() if not f.name.startswith("report"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def block_inputs(checkpoint, tokens, index):
    """The input of block `index`, by the whole model: an independent way to it."""
    model = build(checkpoint.config, checkpoint.read)
    positions = jnp.arange(tokens.shape[1])
    x = model.embed(jnp.asarray(tokens), positions)
    for block in list(model.layers)[:index]:
        x, _ = block(x, positions)
    return model.layers[index], x


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_block_is_compressed_on_the_activations_of_the_compressed_blocks_before_it(
    tiny, calibration, method
):
    compressed, _ = one_shot(tiny, SPARSE, method=method, calibration=calibration)
    path = "layers.2.attention.q_proj.kernel"
    _, x = block_inputs(compressed, calibration.tokens, 2)
    block, _ = block_inputs(tiny, calibration.tokens, 2)
    inputs = np.asarray(block.attention_norm(x), np.float64).reshape(-1, CONFIG.hidden_size)
    gram = (inputs.T @ inputs).astype(np.float32)
    dense = jnp.asarray(tiny.read(path))
    if method == "wanda":
        mask = wanda_mask(dense, jnp.sqrt(jnp.diag(jnp.asarray(gram))), NM(2, 4))
        want = jnp.where(mask, dense, 0)
    else:
        want = sparsegpt(dense, jnp.asarray(gram), pattern=NM(2, 4), format=None).values
    got = materialize(compressed.read(path))
    np.testing.assert_array_equal(np.asarray(got) != 0, np.asarray(want) != 0)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_statistics_are_those_of_the_uncompressed_weights_of_the_block(tiny, calibration):
    compressed, _ = one_shot(tiny, SPARSE, method="wanda", calibration=calibration)
    path = "layers.0.mlp.down_proj.kernel"
    block, x = block_inputs(tiny, calibration.tokens, 0)
    mixed, _ = block.attention(block.attention_norm(x), jnp.arange(x.shape[1]), None)
    normed = block.mlp_norm(x + mixed)
    wide = jax.nn.silu(block.mlp.gate_proj(normed)) * block.mlp.up_proj(normed)
    norm = np.sqrt((np.asarray(wide, np.float64).reshape(-1, 64) ** 2).sum(axis=0))
    mask = wanda_mask(jnp.asarray(tiny.read(path)), jnp.asarray(norm, jnp.float32), NM(2, 4))
    got = np.asarray(materialize(compressed.read(path)))
    np.testing.assert_array_equal(got != 0, np.asarray(mask))


def test_the_reported_output_error_is_that_of_the_block_s_own_product(tiny, calibration):
    compressed, report = one_shot(tiny, SPARSE, method="magnitude", calibration=calibration)
    path = "layers.0.attention.v_proj.kernel"
    block, x = block_inputs(tiny, calibration.tokens, 0)
    inputs = np.asarray(block.attention_norm(x), np.float64).reshape(-1, CONFIG.hidden_size)
    dense = np.asarray(tiny.read(path), np.float64)
    change = np.asarray(materialize(compressed.read(path)), np.float64) - dense
    want = np.linalg.norm(inputs @ change) / np.linalg.norm(inputs @ dense)
    got = next(kernel.output_error for kernel in report.kernels if kernel.path == path)
    assert got == pytest.approx(want, rel=1e-4)


def test_memory_and_folder_hold_the_same_model(tiny, calibration, tmp_path):
    in_folder, _ = one_shot(
        tiny, RECIPE, method="sparsegpt", calibration=calibration, out=tmp_path / "a"
    )
    kept, _ = one_shot(tiny, RECIPE, method="sparsegpt", calibration=calibration)
    save(kept, tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    for path in in_folder.paths:
        assert isinstance(in_folder.read(path), Packed) == path.endswith("kernel")


def test_two_runs_give_the_same_bytes(tiny, calibration, tmp_path):
    for name in ("a", "b"):
        one_shot(tiny, RECIPE, method="sparsegpt", calibration=calibration, out=tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_interrupted_run_resumes_where_it_stopped_and_gives_the_same_bytes(
    tiny, calibration, tmp_path, parts
):
    one_shot(tiny, RECIPE, method="sparsegpt", calibration=calibration, out=tmp_path / "whole")

    def interrupt(_stage, _steps):
        done = iter(range(1, parts + 1))

        def advance():
            if next(done) == parts:
                raise KeyboardInterrupt

        return advance

    arguments = {"method": "sparsegpt", "calibration": calibration, "out": tmp_path / "cut"}
    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, RECIPE, progress=interrupt, **arguments)
    assert not (tmp_path / "cut").exists()
    written = sorted((tmp_path / "cut.partial").glob("*.safetensors"))
    times = [file.stat().st_mtime_ns for file in written]
    assert len(written) == parts
    _, report = one_shot(tiny, RECIPE, **arguments)
    kept = [tmp_path / "cut" / file.name for file in written]
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert len(report.kernels) == 7 * CONFIG.num_layers + 1


def test_a_killed_process_leaves_the_old_result_whole_and_its_work_is_resumed(
    tiny, calibration, tmp_path
):
    arguments = {"method": "sparsegpt", "calibration": calibration}
    one_shot(tiny, RECIPE, out=tmp_path / "whole", **arguments)
    one_shot(tiny, SPARSE, method="magnitude", out=tmp_path / "model")
    old = digest(tmp_path / "model")
    script = f"""
        import os, pathlib
        import numpy as np
        from tests.compression.tiny_model import CONFIG, in_memory, random_weights
        from tests.compression.test_one_shot import RECIPE
        from gossamer.compression import Calibration, one_shot
        def die(stage, steps):
            done = iter(range(steps))
            return lambda: os._exit(9) if next(done) == 1 else None
        tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (6, 32)).astype(np.int32)
        one_shot(in_memory(random_weights()), RECIPE, method="sparsegpt", overwrite=True,
                 calibration=Calibration(text="random", tokens=tokens), progress=die,
                 out=pathlib.Path({str(tmp_path / "model")!r}))
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    line = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(line, cwd=root, check=False).returncode == 9
    assert digest(tmp_path / "model") == old
    assert len(list((tmp_path / "model.partial").glob("*.safetensors"))) == 2
    one_shot(tiny, RECIPE, out=tmp_path / "model", overwrite=True, **arguments)
    assert digest(tmp_path / "model") == digest(tmp_path / "whole")


def test_another_job_does_not_take_an_interrupted_one_s_work_for_its_own(
    tiny, calibration, tmp_path
):
    def interrupt(_stage, _steps):
        def advance():
            raise KeyboardInterrupt

        return advance

    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, SPARSE, method="magnitude", out=tmp_path / "a", progress=interrupt)
    one_shot(tiny, RECIPE, method="sparsegpt", calibration=calibration, out=tmp_path / "a")
    one_shot(tiny, RECIPE, method="sparsegpt", calibration=calibration, out=tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_an_existing_folder_is_refused_before_any_weight_is_read(weights, tmp_path):
    checkpoint = in_memory(weights)
    one_shot(checkpoint, SPARSE, method="magnitude", out=tmp_path / "a")
    old = digest(tmp_path / "a")
    broken = in_memory(weights | {"norm.scale": np.full(32, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"output folder .* exists"):
        one_shot(broken, SPARSE, method="magnitude", out=tmp_path / "a")
    assert digest(tmp_path / "a") == old


def test_random_masks_depend_on_the_seed_and_not_on_other_rules(tiny):
    some = Recipe(rules=(Rule(path=r"layers\.1\..*\.kernel", pattern=NM(2, 4)),))
    path = "layers.1.mlp.up_proj.kernel"
    read = lambda recipe, seed: materialize(  # noqa: E731
        one_shot(tiny, recipe, method="random", seed=seed)[0].read(path)
    )
    np.testing.assert_array_equal(read(SPARSE, 3), read(some, 3))
    assert (np.asarray(read(SPARSE, 3)) != np.asarray(read(SPARSE, 4))).any()


METHODS_OF_A_BLOCK = {  # method: recipe of the blocks
    GPTQ(): DENSE4,
    WandaGPTQ(): RECIPE.rules[0],
    OBR(): RECIPE.rules[0],
    AWQ(): DENSE4,
    SmoothQuant(): Rule(path=DENSE4.path, weights=Int(8), activations=Int(8)),
}


@pytest.mark.parametrize(
    ("method", "rule"), METHODS_OF_A_BLOCK.items(), ids=lambda value: getattr(value, "name", "")
)
def test_every_method_resumes_in_a_folder_and_gives_the_same_bytes_as_in_memory(
    tiny, calibration, tmp_path, method, rule
):
    recipe = Recipe(name="blocks", rules=(rule, RECIPE.rules[1]))

    def interrupt(_stage, _steps):
        done = iter(range(2))

        def advance():
            if next(done) == 1:
                raise KeyboardInterrupt

        return advance

    arguments = {"method": method, "calibration": calibration}
    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, recipe, out=tmp_path / "a", progress=interrupt, **arguments)
    _, report = one_shot(tiny, recipe, out=tmp_path / "a", **arguments)
    kept, again = one_shot(tiny, recipe, **arguments)
    save(kept, tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert [kernel.method for kernel in report.kernels][:2] == ["rtn", method.name]
    assert report.kernels == again.kernels
    assert (report.rescaled, report.untouched) == (again.rescaled, again.untouched)
    changed = [p for p in report.rescaled if (tiny.read(p) != np.asarray(kept.read(p))).any()]
    assert changed == report.rescaled
    for path in report.untouched:
        np.testing.assert_array_equal(tiny.read(path), kept.read(path))


def test_another_setting_does_not_take_an_interrupted_run_s_work_for_its_own(
    tiny, calibration, tmp_path
):
    def interrupt(_stage, _steps):
        done = iter(range(3))

        def advance():
            if next(done) == 2:
                raise KeyboardInterrupt

        return advance

    recipe = Recipe(name="int4", rules=(DENSE4,))
    arguments = {"calibration": calibration, "out": tmp_path / "a"}
    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, recipe, method=GPTQ(act_order=False), progress=interrupt, **arguments)
    one_shot(tiny, recipe, method=GPTQ(), **arguments)
    one_shot(tiny, recipe, method=GPTQ(), **arguments | {"out": tmp_path / "b"})
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def indefinite(correlation):
    """Stands for what is measured: a matrix with the eigenvalue 1 - correlation."""

    def statistics(block, hidden, paths):
        return {
            path: each._replace(
                gram=jnp.full(each.gram.shape, correlation)
                .at[jnp.diag_indices(len(each.gram))]
                .set(1.0)
            )
            for path, each in input_statistics(block, hidden, paths).items()
        }

    return statistics


def test_a_hessian_that_is_not_positive_definite_is_damped_and_the_kernel_named(
    tiny, calibration, monkeypatch, tmp_path
):
    monkeypatch.setattr(WALK, "input_statistics", indefinite(1.05))
    one = Recipe(rules=(Rule(path=r"layers\.1\.mlp\.up_proj\.kernel", weights=INT4),))
    message = (
        r"Hessian of layers\.1\.mlp\.up_proj\.kernel \(32, 64\) is not positive definite with "
        r"damping 0\.01; it was solved with 0\.1"
    )
    with pytest.warns(UserWarning, match=message):
        _, report = one_shot(tiny, one, method="gptq", calibration=calibration, out=tmp_path / "a")
    assert [kernel.damping for kernel in report.kernels] == [pytest.approx(0.1)]
    written = (tmp_path / "a" / "report.md").read_text()
    assert "damping 0.1 for `layers.1.mlp.up_proj.kernel`" in written


@pytest.mark.parametrize("method", ["sparsegpt", "gptq", "wanda-gptq", "obr"])
def test_a_hessian_that_no_damping_mends_is_refused_by_the_kernel_s_name(
    tiny, calibration, monkeypatch, tmp_path, method
):
    monkeypatch.setattr(WALK, "input_statistics", indefinite(50.0))
    rule = DENSE4 if method == "gptq" else RECIPE.rules[0]
    message = r"layers\.0\.attention\.k_proj\.kernel \(32, 16\): The Gram matrix .* damping=10 is"
    with pytest.raises(ValueError, match=message):
        one_shot(
            tiny,
            Recipe(rules=(rule,)),
            method=method,
            calibration=calibration,
            out=tmp_path / "a",
        )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(weights, value):
    path = "layers.1.mlp.up_proj.kernel"
    weights[path] = weights[path].copy()
    weights[path][3, 4] = value
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.kernel .* NaN or Inf"):
        one_shot(in_memory(weights), SPARSE, method="magnitude")


def test_activations_that_overflow_are_named_by_their_block(weights, calibration):
    weights["layers.1.mlp.down_proj.kernel"] = np.full((64, 32), 3e38, np.float32)
    with pytest.raises(ValueError, match=r"block layers\.1 hold NaN or Inf"):
        one_shot(in_memory(weights), SPARSE, method="magnitude", calibration=calibration)


def test_a_solve_that_overflows_is_named_by_the_kernel(weights, calibration):
    weights["layers.1.mlp.down_proj.kernel"] = np.full((64, 32), 3e38, np.float32)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj\.kernel .* overflow"):
        one_shot(in_memory(weights), SPARSE, method="sparsegpt", calibration=calibration)


def test_inputs_that_overflow_inside_a_block_are_named_by_the_kernel(weights, calibration):
    weights["layers.1.mlp.up_proj.kernel"] = np.full((32, 64), 3e38, np.float32)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj\.kernel .* NaN or Inf"):
        one_shot(in_memory(weights), SPARSE, method="sparsegpt", calibration=calibration)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(path="layers.*", weights=INT4), r"attention_norm\.scale \(32,\) is not a kernel"),
        (Rule(path=r".*q_proj\.kernel", pattern=NM(2, 64)), r"q_proj.* multiple of 64, got 32"),
        (Rule(path=r".*q_proj\.kernel", weights=Int(4, group=24)), r"q_proj.*multiple of 24"),
        (
            Rule(path=r".*q_proj\.kernel", pattern=NM(1, 16), weights=Int(3)),
            r"q_proj\.kernel \(32, 32\): A 1:16 kernel .* cannot be packed",
        ),
        (Rule(path="nothing", weights=INT4), r"\['nothing'\] .* match no weight"),
    ],
)
def test_what_a_recipe_asks_in_vain_is_told_before_any_weight_is_read(weights, rule, message):
    weights["norm.scale"] = np.full(32, np.nan, np.float32)
    with pytest.raises(ValueError, match=message):
        one_shot(in_memory(weights), Recipe(rules=(rule,)), method="magnitude")


def test_methods_that_do_not_suit_are_refused_before_any_weight_is_read(weights, calibration):
    tiny = in_memory(weights | {"norm.scale": np.full(32, np.nan, np.float32)})
    for method in ("rtn", "gptq", "awq", "smoothquant"):
        message = rf"Recipe '2:4' .* layers\.0.*: Method '{method}' rounds and does not prune"
        with pytest.raises(ValueError, match=message):
            one_shot(tiny, SPARSE, method=method, calibration=calibration)
    channels = Recipe(rules=(Rule(path=r"layers\..*\.kernel", pattern=Channel(0.5)),))
    for method in ("sparsegpt", "obr"):
        with pytest.raises(ValueError, match=r"50% of channels"):
            one_shot(tiny, channels, method=method, calibration=calibration)
    # The run-time check of annotations that tests switch on comes before our own.
    with pytest.raises((ValueError, TypeCheckError), match=r"method|best"):
        one_shot(tiny, SPARSE, method="best")
    with pytest.raises(ValueError, match="without a tokenizer"):
        one_shot(tiny, SPARSE, method="sparsegpt", calibration="builtin")


def test_a_compressed_model_is_not_compressed_again(tiny, tmp_path):
    one_shot(tiny, RECIPE, method="magnitude", out=tmp_path / "a")
    with pytest.raises(ValueError, match=r"embedding\.kernel is compressed already"):
        one_shot(load_saved(tmp_path / "a"), RECIPE, method="magnitude")


def test_calibration_tokens_outside_the_vocabulary_are_refused(tiny):
    tokens = np.full((2, 8), CONFIG.vocab_size, np.int32)
    wrong = Calibration(text="other", tokens=tokens)
    with pytest.raises(ValueError, match="outside the vocabulary of 48"):
        one_shot(tiny, SPARSE, method="wanda", calibration=wrong)
