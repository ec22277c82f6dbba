import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import AWQ, one_shot
from gossamer.compression.methods.awq import CLIPS, RATIOS, channel_factors, clip
from gossamer.compression.methods.method import CalibratedBlock, Task
from gossamer.compression.observe import input_statistics, kernel_inputs
from gossamer.inference.blockwise import begin, run_blocks
from gossamer.models import LlamaBlock, build_block
from gossamer.quantization import MX, Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from tests.compression.layers import layer, output_error
from tests.compression.methods.test_smoothquant import INPUTS

INT3 = Int(3, group=16, symmetric=False)
RECIPE = Recipe(name="int3", rules=(Rule(path=r"layers\..*\.kernel", weights=INT3),))
PAIRS = {pair.source: pair for pair in LlamaBlock.RESCALABLE}


def calibrated(model, calibration):
    block = build_block(model.config, model.read, 0)
    hidden = begin(model, jnp.asarray(calibration.tokens))
    names = [f"{name}.kernel" for pair in PAIRS.values() for name in pair.projections]
    return CalibratedBlock(
        block=block,
        flow=hidden,
        inputs=input_statistics(block, hidden, names),
        rules=dict.fromkeys(names, RECIPE.rules[0]),
    )


def test_golden_factors():
    absmean = jnp.mean(jnp.abs(INPUTS), axis=0)
    want = [0.474736, 2.432299, 0.411134, 1.125936]
    np.testing.assert_allclose(channel_factors(absmean, 0.5), want, rtol=2e-6)  # six digits


def test_the_first_ratio_scales_nothing():
    np.testing.assert_array_equal(channel_factors(jnp.array([0.0, 3.0]), RATIOS[0]), [1, 1])


def test_a_projection_s_factors_are_those_with_the_least_error_of_its_own_output(tiny, calibration):
    block = calibrated(tiny, calibration)
    x = np.asarray(
        kernel_inputs(block.block, block.flow, ["mlp.down_proj.kernel"])["mlp.down_proj.kernel"],
        np.float64,
    ).reshape(-1, 64)
    kernel = tiny.read("layers.0.mlp.down_proj.kernel")
    losses = []
    for ratio in RATIOS:
        s = np.asarray(channel_factors(jnp.asarray(np.abs(x).mean(axis=0), jnp.float32), ratio))
        rounded = np.asarray(INT3.quantize(jnp.asarray(kernel * s[:, None]))) / s[:, None]
        losses.append(np.sum((x @ (rounded - kernel)) ** 2))
    [(pair, got)] = AWQ().scalings(block, [PAIRS["mlp.up_proj"]])
    assert pair is PAIRS["mlp.up_proj"]
    absmean = block.inputs["mlp.down_proj.kernel"].absmean
    best = RATIOS[int(np.argmin(losses))]
    assert best > 0  # else the test would show nothing
    np.testing.assert_array_equal(got, channel_factors(absmean, best))


def test_a_norm_s_factors_are_those_with_the_least_error_of_the_whole_layer(tiny, calibration):
    block = calibrated(tiny, calibration)
    mlp = block.block.mlp
    path = "mlp.up_proj.kernel"
    x = kernel_inputs(block.block, block.flow, [path])[path]
    dense = {name: tiny.read(f"layers.0.mlp.{name}.kernel") for name in ("gate_proj", "up_proj")}
    want, losses = mlp(x), []
    for ratio in RATIOS:
        s = np.asarray(channel_factors(block.inputs[path].absmean, ratio))[:, None]
        for name, kernel in dense.items():
            rounded = INT3.quantize(jnp.asarray(kernel * s)) / s
            getattr(mlp, name).kernel.set_value(rounded)
        losses.append(float(jnp.mean((mlp(x) - want) ** 2)))
    for name, kernel in dense.items():
        getattr(mlp, name).kernel.set_value(jnp.asarray(kernel))
    [(_, got)] = AWQ().scalings(block, [PAIRS["mlp_norm"]])
    best = RATIOS[int(np.argmin(losses))]
    assert best > 0
    np.testing.assert_array_equal(got, channel_factors(block.inputs[path].absmean, best))


@pytest.mark.parametrize("format", [Int(3, group=16), Int(3, symmetric=False), MX("e2m1")], ids=str)
def test_each_group_is_clipped_where_its_share_of_the_output_changes_least(format):
    kernel, gram = layer(64, 8)
    got = np.asarray(clip(kernel, gram, format))
    size = 64 // format.groups(64)
    kernel, gram = np.asarray(kernel), np.asarray(gram, np.float64)
    clipped = 0
    for start in range(0, 64, size):
        rows = slice(start, start + size)
        for output in range(8):
            errors, candidates = [], []
            for share in CLIPS:
                limit = np.float32(share) * np.abs(kernel[rows, output]).max()
                whole = kernel.copy()
                whole[rows, output] = np.clip(kernel[rows, output], -limit, limit)
                rounded = np.asarray(format.quantize(jnp.asarray(whole)))[rows, output]
                change = (rounded - kernel[rows, output]).astype(np.float64)
                errors.append(change @ gram[rows, rows] @ change)
                candidates.append(whole[rows, output])
            best = candidates[int(np.argmin(errors))]
            np.testing.assert_allclose(got[rows, output], best, rtol=1e-6)
            clipped += best is not candidates[0]
    assert clipped > 0


def test_queries_and_keys_are_not_clipped():
    kernel, gram = layer(64, 8)
    rule = Rule(path="w", weights=Int(3, group=16))
    whole, clipped = (
        AWQ().compress(Task(path="w", kernel=kernel, rule=rule, gram=gram, feeds_scores=scores))
        for scores in (True, False)
    )
    np.testing.assert_array_equal(whole.values, rule.weights.quantize(kernel))
    assert output_error(clipped.values, kernel, gram) < output_error(whole.values, kernel, gram)


def test_only_the_projections_of_queries_and_keys_feed_scores(tiny, calibration, monkeypatch):
    seen = {}
    compress = AWQ.compress
    monkeypatch.setattr(
        AWQ,
        "compress",
        lambda self, task: seen.update({task.path: task.feeds_scores}) or compress(self, task),
    )
    one_shot(tiny, RECIPE, method="awq", calibration=calibration)
    feeding = {path.split(".", 2)[2] for path, feeds in seen.items() if feeds}
    assert feeding == {"attention.q_proj.kernel", "attention.k_proj.kernel"}


def test_the_block_s_output_changes_less_than_by_rounding_to_nearest(tiny, calibration):
    want = tiny_outputs(tiny, calibration)
    errors = []
    for method in ("awq", "rtn"):
        small, _ = one_shot(tiny, RECIPE, method=method, calibration=calibration)
        errors.append(float(jnp.mean((tiny_outputs(small, calibration) - want) ** 2)))
    assert errors[0] < errors[1]


def tiny_outputs(model, calibration):
    return run_blocks(model, begin(model, jnp.asarray(calibration.tokens)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(path="w"), "names no format"),
        (Rule(path="w", pattern=NM(2, 4), weights=Int(4)), "does not prune"),
    ],
)
def test_rules_that_it_cannot_follow_are_refused(rule, message):
    assert message in AWQ().why_not(rule)
