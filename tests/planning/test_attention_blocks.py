"""Golden values: FLAT (arXiv 2107.06419) and FuseMax (arXiv 2406.10491)."""

import dataclasses
import io

import matplotlib.image
import pytest

from gossamer.planning import (
    FLAT_MODELS,
    AttentionModel,
    LayerWeights,
    attention_latency_plot,
    attention_plans,
    attention_utilization_plot,
    best_fused,
    best_unfused,
    block_cost,
    block_weights,
    find_chip,
    find_shape,
    kernel_bytes,
    linear_seconds,
    store_weights,
)
from gossamer.quantization import Int
from gossamer.recipe import PRESETS, Recipe, Rule

K = 1024
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


@pytest.mark.parametrize(
    ("length", "percent"), [(512, 12), (4 * K, 49), (16 * K, 79), (64 * K, 94)]
)
def test_share_of_attention_in_run_time(length, percent):
    """Published without model or platform: of BERT-base on the edge, within 10 points."""
    bert, edge = FLAT_MODELS["bert-base"], find_chip("flat-edge")
    attention = best_unfused(edge, bert.shape(length), charge_softmax=False)
    share = block_cost(edge, bert, attention).attention_share
    assert 100 * share == pytest.approx(percent, abs=10)


@pytest.mark.parametrize(
    ("model", "length", "speedup"),
    [
        ("bert-base", K, 1.403),
        ("bert-base", 4 * K, 1.507),
        ("bert-base", 64 * K, 1.556),
        ("bert-base", 256 * K, 1.350),
        ("xlm", K, 1.175),
        ("xlm", 256 * K, 1.311),
    ],
)
def test_speedup_with_linear_layers(model, length, speedup):
    sizes, chip = FLAT_MODELS[model], find_chip("flat-cloud")
    tiles = [tile for tile in (256, 512, 1024) if tile < length]
    fused, unfused = (
        block_cost(chip, sizes, cost).seconds
        for cost in (
            best_fused(chip, sizes.shape(length), row_tiles=tiles),
            best_unfused(chip, sizes.shape(length)),
        )
    )
    assert unfused / fused == pytest.approx(speedup, rel=5e-3)


def test_linear_layers_of_a_batch_are_bound_by_arithmetic_and_those_of_a_token_by_memory():
    chip, bert = find_chip("flat-cloud"), FLAT_MODELS["bert-base"]
    batch = linear_seconds(chip, bert, sequence=4 * K, batch=64)
    assert sum(batch.values()) == pytest.approx(64 * 4 * K * 12 * 768**2 / (256**2 * 0.94e9))
    token = linear_seconds(chip, bert, sequence=1, batch=1)
    elements = 4 * (768 + 768**2 + 768) + 2 * (768 + 768 * 3072 + 3072)
    assert sum(token.values()) == pytest.approx(2 * elements / chip.memory_bandwidth)
    assert list(token) == list(bert.linear_layers())


def test_the_linear_layers_of_a_model_are_its_own_kernels():
    palm, t5 = find_shape("palm-8b"), find_shape("t5-small")
    assert AttentionModel.of(palm).linear_layers() == palm.block_kernels("layers")
    assert AttentionModel.of(t5).linear_layers() == t5.block_kernels("encoder.layers")
    flat = FLAT_MODELS["t5-small"]
    assert sorted(flat.linear_layers().values()) == sorted(
        AttentionModel.of(t5).linear_layers().values()
    )


@pytest.mark.parametrize("preset", ["int4", "w8a8", "2:4-int4"])
@pytest.mark.parametrize("name", ["palm-8b", "llama-3-8b", "opt-125m", "t5-small"])
def test_weights_of_a_block_are_those_of_the_stored_model(name, preset):
    chip, shape = find_chip("h100-sxm"), find_shape(name)
    found = block_weights(chip, AttentionModel.of(shape), PRESETS[preset])
    stored = store_weights(shape, PRESETS[preset])
    stack = shape.stack("prefill")
    blocks = shape.stacks[stack]
    assert blocks * sum(each.nbytes for each in found.values()) == stored.block_bytes[stack]
    compute = stored.relative_compute(chip)
    assert [each.relative_compute for each in found.values()] == pytest.approx(
        [compute] * len(found)
    )


def test_blocks_that_differ_are_averaged():
    shape = find_shape("opt-125m")  # of 12 blocks, 3 are compressed
    recipe = Recipe(rules=(Rule(path=r"layers\.[0-2]\..*", weights=Int(8), activations=Int(8)),))
    found = block_weights(find_chip("h100-sxm"), AttentionModel.of(shape), recipe)
    kernel = (768, 3072)
    sizes = [kernel_bytes(kernel, rule) for rule in (recipe.rules[0], None)]
    assert found["mlp.fc1.kernel"].nbytes == (3 * sizes[0] + 9 * sizes[1]) / 12
    half = find_chip("h100-sxm").bf16_flops / find_chip("h100-sxm").int8_ops
    assert found["mlp.fc1.kernel"].relative_compute == pytest.approx((3 * half + 9) / 12)


def test_compressed_weights_save_time_only_where_reading_them_is_what_takes_it():
    chip, bert = find_chip("flat-cloud"), FLAT_MODELS["bert-base"]
    weights = block_weights(chip, bert, PRESETS["int4"])
    one, many = (
        [
            linear_seconds(chip, bert, sequence=tokens, batch=1, weights=each)["mlp.fc1.kernel"]
            for each in (None, weights)
        ]
        for tokens in (1, 4096)
    )
    activations = 2 * (768 + 3072)
    stored = kernel_bytes((768, 3072), PRESETS["int4"].rules[0])
    assert one[1] == pytest.approx((activations + stored) / chip.memory_bandwidth)
    assert one[0] / one[1] > 3
    assert many[0] == many[1]


def test_bf16_weights_are_what_is_counted_without_any():
    chip, bert = find_chip("flat-cloud"), FLAT_MODELS["bert-base"]
    halves = {
        name: LayerWeights(nbytes=2.0 * inputs * outputs)
        for name, (inputs, outputs) in bert.linear_layers().items()
    }
    for sequence in (1, 512):
        assert linear_seconds(
            chip, bert, sequence=sequence, batch=1, weights=halves
        ) == linear_seconds(chip, bert, sequence=sequence, batch=1)


def test_the_share_of_attention_grows_as_products_get_faster(plans):
    fast = dataclasses.replace(find_chip("flat-cloud"), int8_ops=4 * 1e14, bf16_flops=1e14)
    bert = FLAT_MODELS["bert-base"]
    weights = block_weights(fast, bert, PRESETS["w8a8"])
    before, after = (
        block_cost(fast, bert, plans[512].fused, weights=each) for each in (None, weights)
    )
    assert after.attention_share > before.attention_share
    assert after.attention is before.attention


@pytest.fixture(scope="module")
def plans():
    lengths = [512, 4 * K, 32 * K]
    return attention_plans(find_chip("flat-cloud"), FLAT_MODELS["bert-base"], lengths)


def pixels(plot: bytes, color: tuple[int, int, int]) -> int:
    image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round()
    return int((image == color).all(-1).sum())


@pytest.mark.parametrize("draw", [attention_utilization_plot, attention_latency_plot])
def test_plots_have_a_line_fused_and_one_unfused(draw, plans):
    plot = draw(plans, title="BERT-base")
    assert pixels(plot, BLUE) > 500
    assert pixels(plot, ORANGE) > 500


def test_plans_over_lengths_are_of_those_lengths(plans):
    assert [plan.fused.shape.sequence for plan in plans.values()] == list(plans)


def test_what_does_not_belong_together_is_refused(plans):
    chip, xlm = find_chip("flat-cloud"), FLAT_MODELS["xlm"]
    with pytest.raises(ValueError, match="16 heads of 128, its attention 12 of 64"):
        block_cost(chip, xlm, plans[512].fused)
    with pytest.raises(ValueError, match="need tokens, got 0 sequences of 512"):
        linear_seconds(chip, xlm, sequence=512, batch=0)
    with pytest.raises(ValueError, match="need one or more"):
        attention_plans(chip, xlm, [])
    with pytest.raises(ValueError, match=r"mlp\.fc2\.kernel.* are missing"):
        linear_seconds(chip, xlm, sequence=1, batch=1, weights={})
    groups = Recipe.of(".*layers.*", weights=Int(4, group=96))
    with pytest.raises(ValueError, match=r"attention\.q_proj\.kernel \(2048, 2048\): .*96"):
        block_weights(chip, xlm, groups)
    with pytest.raises(ValueError, match="match no weight"):
        block_weights(chip, xlm, Recipe.of("encoder.*", weights=Int(8)))
