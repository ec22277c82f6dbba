"""Golden values: Kao et al., "FLAT", arXiv 2107.06419, the authors' slides and poster."""

import pytest

from gossamer.planning import (
    FLAT_MODELS,
    AttentionShape,
    attend_operator,
    find_chip,
    logit_operator,
    projection_operator,
)

LENGTHS = (512, 1024, 2048)
CHART = {  # multiply-adds a byte, read off the bars at these lengths, about 0 to 8 too low
    "FC1": (126, 165, 204),
    "FC2": (204, 337, 508),
    "L": (20, 20, 27),
    "f(FC2, FC2)": (225, 408, 678),
    "f(L, A)": (165, 337, 678),
    "f(L, FC1)": (60, 47, 41),
}


def shape_of_the_chart(length: int) -> AttentionShape:
    return AttentionShape(batch=1, sequence=length, heads=16, head_dim=64)


def intensities(length: int) -> dict[str, float]:
    shape = shape_of_the_chart(length)
    small, large = (projection_operator(length, width, width) for width in (1024, 4096))
    logit, attend = logit_operator(shape), attend_operator(shape)
    both = logit.fuse(attend)
    return {
        "FC1": small.intensity(),
        "FC2": large.intensity(),
        "L": logit.intensity(),
        "f(FC2, FC2)": large.fuse(large).intensity(),
        "f(L, A)": both.macs / (2 * both.read),  # the chart leaves its output out
        "f(L, FC1)": small.fuse(logit).intensity(),
    }


@pytest.mark.parametrize("name", CHART)
def test_intensities_are_the_bars_of_the_chart(name):
    tolerance = 9 if name == "L" else 8
    for length, bar in zip(LENGTHS, CHART[name], strict=True):
        assert intensities(length)[name] == pytest.approx(bar, abs=tolerance)


@pytest.mark.parametrize("length", LENGTHS)
def test_intensities_have_the_closed_forms(length):
    n, d, h = length, 1024, 16
    found = intensities(length)
    assert found["FC1"] == pytest.approx(n * d / (2 * (2 * n + d)))
    assert found["L"] == pytest.approx(n * d / (2 * (2 * d + h * n)))
    assert found["f(FC2, FC2)"] == pytest.approx(n * 4096 / (2 * (n + 4096)))
    assert found["f(L, A)"] == pytest.approx(n / 3)
    assert found["f(L, FC1)"] == pytest.approx(
        (n**2 * d + n * d**2) / (2 * (2 * n * d + d**2 + h * n**2))
    )


def test_batching_helps_projections_and_not_attention():
    alone, batched = (FLAT_MODELS["bert-base"].shape(512, batch=size) for size in (1, 64))
    for operator in (logit_operator, attend_operator):
        assert operator(batched).intensity() == operator(alone).intensity()
    alone, batched = (projection_operator(size * 512, 768, 768) for size in (1, 64))
    assert batched.intensity() > 1.5 * alone.intensity()


def test_only_fusing_both_products_lifts_attention_above_the_ridge():
    ridge = find_chip("tpu-v3").ridge / 2  # of multiply-adds
    found = intensities(2048)
    assert found["L"] < ridge
    assert found["f(L, FC1)"] < ridge
    assert (
        logit_operator(shape_of_the_chart(2048))
        .fuse(attend_operator(shape_of_the_chart(2048)))
        .intensity()
        > ridge
    )


@pytest.mark.parametrize(
    ("model", "baseline", "fused"), [("bert-base", 0.38, 1.90), ("xlm", 0.67, 2.01)]
)
def test_ratio_of_compute_to_memory_time_on_a_tpu_v3(model, baseline, fused):
    chip, shape = find_chip("tpu-v3"), FLAT_MODELS[model].shape(512, batch=1)
    logit, attend = logit_operator(shape), attend_operator(shape)

    def ratio(macs: int, elements: int) -> float:
        return (2 * macs / chip.bf16_flops) / (2 * elements / chip.memory_bandwidth)

    apart = logit.read + logit.written + attend.read + attend.written
    both = logit.fuse(attend)
    assert ratio(both.macs, apart) == pytest.approx(baseline, rel=0.08)
    assert ratio(both.macs, both.read + both.written) == pytest.approx(fused, rel=0.08)
    share = 4 * shape.width / (4 * shape.width + 2 * shape.heads * shape.sequence)
    assert (both.read + both.written) / apart == pytest.approx(share)


def test_macs_are_half_of_the_flops_that_papers_count():
    shape = FLAT_MODELS["xlm"].shape(1024, batch=3)
    assert 4 * shape.macs == 4 * 3 * 1024**2 * 2048
    assert logit_operator(shape).macs == attend_operator(shape).macs == shape.macs


@pytest.mark.parametrize(
    ("model", "width"),
    [("bert-base", 768), ("transformer-xl", 1024), ("t5-small", 512), ("xlm", 2048)],
)
def test_models_have_the_widths_of_the_paper_and_feed_forwards_four_times_as_wide(model, width):
    sizes = FLAT_MODELS[model]
    assert sizes.shape(512).width == width
    assert sizes.linear_layers()["mlp.fc1.kernel"] == (width, 4 * width)


@pytest.mark.parametrize("field", ["batch", "sequence", "heads", "head_dim", "element_bytes"])
@pytest.mark.parametrize("size", [0, -1])
def test_impossible_sizes_are_refused(field, size):
    sizes = {"batch": 1, "sequence": 8, "heads": 1, "head_dim": 4} | {field: size}
    with pytest.raises(ValueError, match=rf"{field} of attention needs 1 or more, got {size}"):
        AttentionShape(**sizes)


def test_operators_that_do_not_follow_one_another_cannot_be_fused():
    with pytest.raises(ValueError, match=r"reads 16 elements cannot be fused .* writes 100"):
        projection_operator(10, 1, 10).fuse(projection_operator(2, 4, 2))
