"""Golden values: FLAT (arXiv 2107.06419) and FuseMax (arXiv 2406.10491)."""

import io

import matplotlib.image
import pytest

from gossamer.planning import (
    FLAT_MODELS,
    attention_latency_plot,
    attention_plans,
    attention_utilization_plot,
    best_fused,
    best_unfused,
    block_cost,
    find_chip,
    linear_seconds,
)

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
