"""Golden values: what the corrected code of FLAT gives, as FuseMax (arXiv 2406.10491) lists it."""

import dataclasses

import pytest

from gossamer.planning import (
    FLAT_ENERGY,
    FLAT_MODELS,
    AttentionCost,
    AttentionMapping,
    OperatorMapping,
    attention_joules,
    find_chip,
    fused_cost,
    unfused_cost,
)

K = 1024


def mapped(granularity, rows, stationarity, kept, *, scores=True) -> AttentionMapping:
    return AttentionMapping(
        granularity=granularity,
        scores_on_chip=scores,
        logit=OperatorMapping(
            rows=rows, stationarity=stationarity, on_chip=tuple(k for k in kept if k in "QK")
        ),
        attend=OperatorMapping(
            rows=rows, stationarity=stationarity, on_chip=tuple(k for k in kept if k == "V")
        ),
    )


def cost(platform, model, length, mapping, *, charge_softmax=False) -> AttentionCost:
    shape = FLAT_MODELS[model].shape(length)
    chip = find_chip(f"flat-{platform}")
    return fused_cost(chip, shape, mapping, charge_softmax=charge_softmax)


# Platform, model, length, mapping; spilled share, bytes, ideal and actual seconds.
FUSED_ON_CLOUD = [
    ("bert-base", 512, ("H", 512, "output", ""), 0, 3.5248538e8, 4.18315e-4, 1.05107e-3),
    ("bert-base", K, ("H", K, "output", ""), 0, 1.30878669e9, 1.67326e-3, 4.18843e-3),
    (
        "bert-base",
        4 * K,
        ("H", 4 * K, "output", ""),
        0.007752,
        2.01796432e10,
        2.67722e-2,
        6.69357e-2,
    ),
    ("bert-base", 8 * K, ("R", K, "output", ""), 0, 7.81148815e10, 1.07089e-1, 2.67761e-1),
    ("xlm", 512, ("H", 512, "output", "KV"), 0, 6.71547392e8, 1.11551e-3, 1.68086e-3),
]
NOT_FUSED = [
    ("cloud", "bert-base", 256 * K, ("R", K, "weight", "Q"), 2.24351913e14, 109.659, 522.362),
    ("cloud", "xlm", 128 * K, ("R", K, "weight", "Q"), 7.92335580e13, 73.1058, 184.481),
    ("edge", "bert-base", 8 * K, ("R", 128, "weight", "Q"), 4.13927520e11, 6.85367, 7.71042),
]
MIXED_ON_EDGE = [
    (
        "bert-base",
        512,
        ("H", 512, "output", "QKV"),
        False,
        0,
        1.409490944e9,
        2.67722e-2,
        2.67809e-2,
    ),
    (
        "bert-base",
        K,
        ("H", K, "weight", "Q"),
        False,
        0.022901,
        5.67743635e9,
        1.07089e-1,
        1.07101e-1,
    ),
    ("bert-base", 4 * K, ("R", 64, "weight", "Q"), True, 0.058824, 7.05353841e10, 1.71342, 1.71384),
    ("xlm", K, ("R", 128, "weight", ""), True, 0, 1.31533599e10, 2.85570e-1, 2.85640e-1),
]


@pytest.mark.parametrize(
    ("model", "length", "mapping", "spilled", "traffic", "ideal", "seconds"), FUSED_ON_CLOUD
)
def test_fused_rows_of_the_cloud(model, length, mapping, spilled, traffic, ideal, seconds):
    found = cost("cloud", model, length, mapped(*mapping))
    assert found.spilled_share == pytest.approx(spilled, abs=1e-6)
    assert found.memory_bytes == pytest.approx(traffic, rel=1e-3)
    assert found.seconds == pytest.approx(seconds, rel=6e-3)  # the first tiles' arrival is left out
    assert found.ideal_seconds == pytest.approx(ideal, rel=1e-5)  # as many digits are printed
    assert found.limit == "array"


@pytest.mark.parametrize("heads", [("transformer-xl", 16), ("flaubert", 16), ("t5-small", 8)])
def test_models_with_heads_of_64_scale_by_their_number(heads):
    model, number = heads
    mapping = mapped("H", K, "output", "")
    bert, other = (cost("cloud", name, K, mapping) for name in ("bert-base", model))
    assert other.memory_bytes == pytest.approx(bert.memory_bytes * number / 12)
    assert other.seconds == pytest.approx(bert.seconds * number / 12)


@pytest.mark.parametrize(
    ("platform", "model", "length", "mapping", "traffic", "ideal", "seconds"), NOT_FUSED
)
def test_rows_that_are_not_fused(platform, model, length, mapping, traffic, ideal, seconds):
    found = cost(platform, model, length, mapped(*mapping, scores=False))
    assert found.memory_bytes == pytest.approx(traffic, rel=1e-5)
    assert found.seconds == pytest.approx(seconds, rel=6e-5)
    assert found.ideal_seconds == pytest.approx(ideal, rel=1e-5)
    assert found.limit == "memory"


@pytest.mark.parametrize(
    ("model", "length", "mapping", "scores", "spilled", "traffic", "ideal", "seconds"),
    MIXED_ON_EDGE,
)
def test_mixed_rows_of_the_edge(model, length, mapping, scores, spilled, traffic, ideal, seconds):
    found = cost("edge", model, length, mapped(*mapping, scores=scores))
    assert found.spilled_share == pytest.approx(spilled, abs=1e-6)
    assert found.memory_bytes == pytest.approx(traffic, rel=3e-4)  # 5 % was asked for
    assert found.seconds == pytest.approx(seconds, rel=5e-4)
    assert found.ideal_seconds == pytest.approx(ideal, rel=1e-5)


@pytest.mark.parametrize(("platform", "array"), [("edge", 32), ("cloud", 256)])
@pytest.mark.parametrize("model", ["bert-base", "transformer-xl", "t5-small", "xlm"])
def test_ideal_seconds_and_energy_at_all_lengths(platform, array, model):
    sizes = FLAT_MODELS[model]
    for power in range(9, 21):  # 512 to 1M
        found = cost(platform, model, 2**power, mapped("R", 256, "weight", "Q", scores=False))
        macs = 2 * 64 * sizes.heads * 4**power * sizes.head_dim
        assert found.ideal_seconds == pytest.approx(macs / (array**2 * 0.94e9), rel=1e-6)
        assert attention_joules(found, FLAT_ENERGY) == pytest.approx(
            32e-12 * found.memory_bytes, rel=1e-6
        )


@pytest.mark.parametrize(
    ("model", "length", "mapping", "scores", "seconds"),
    [
        ("bert-base", K, ("H", K, "output", ""), True, 0.0133861),
        ("bert-base", 4 * K, ("H", 4 * K, "output", ""), True, 0.214177),
        ("bert-base", 64 * K, ("R", 256, "output", ""), True, 54.8294),
        ("bert-base", 256 * K, ("R", K, "weight", "Q"), False, 1013.88),
        ("xlm", K, ("H", K, "output", "KV"), True, 0.0178481),
        ("xlm", 256 * K, ("R", K, "weight", "Q"), False, 1392.96),
    ],
)
def test_seconds_with_softmax_charged(model, length, mapping, scores, seconds):
    found = cost("cloud", model, length, mapped(*mapping, scores=scores), charge_softmax=True)
    assert found.seconds == pytest.approx(seconds, rel=5e-3)
    assert found.limit == ("softmax" if scores else "memory")


def test_softmax_lanes_leave_the_array_an_eighth_used_with_heads_of_64():
    bert = cost("cloud", "bert-base", K, mapped("H", K, "output", ""), charge_softmax=True)
    xlm = cost("cloud", "xlm", K, mapped("H", K, "output", ""), charge_softmax=True)
    assert (bert.utilization, xlm.utilization) == pytest.approx((0.125, 0.25))


def test_steps_apart_have_the_compulsory_traffic_of_each():
    """The form that is exact through 64K: each tensor moved once a step."""
    chip, shape = find_chip("flat-cloud"), FLAT_MODELS["bert-base"].shape(4 * K)
    found = unfused_cost(chip, shape, mapped("M", 256, "output", "QKV", scores=False))
    rest, n, d = 2 * 64 * 12, 4 * K, 64
    assert [phase.name for phase in found.phases] == ["logit", "softmax", "attend"]
    assert found.memory_bytes == rest * (4 * n * d + 4 * n**2)
    product = rest * (2 * n * d + n**2) / chip.memory_bandwidth
    softmax = 4 * 64 * 12 * n**2 / (256 * 0.94e9)
    assert found.seconds == pytest.approx(2 * product + softmax)
    assert [phase.limit for phase in found.phases] == ["memory", "softmax", "memory"]


def test_scores_of_the_whole_batch_on_the_chip_are_fetched_by_no_step():
    shape = FLAT_MODELS["bert-base"].shape(128, batch=1)
    mapping = mapped("M", 128, "output", "QKV")
    apart = unfused_cost(find_chip("flat-cloud"), shape, mapping)
    assert apart.memory_bytes == shape.compulsory_bytes
    assert fused_cost(find_chip("flat-cloud"), shape, mapping).seconds <= apart.seconds


def test_the_share_that_does_not_fit_spills():
    """All that the array and the softmax take from the buffer and give to it, a share of it."""
    shape = FLAT_MODELS["bert-base"].shape(4 * K)
    mapping = mapped("H", 4 * K, "output", "")
    found = fused_cost(find_chip("flat-cloud"), shape, mapping)
    capacity, footprint = 2**25, 2**25 + 2**18  # a head's scores, and the array's tiles
    assert found.footprint_bytes == footprint
    share = 1 - capacity / footprint
    n, often = 4 * K, 3 * 16 + 1
    spilled = share * n**2 * (2.25 + 5)
    assert found.memory_bytes == pytest.approx(2 * 64 * 12 * (n * 64 * often + spilled))


def test_chips_without_constants_are_refused_by_name():
    shape = FLAT_MODELS["bert-base"].shape(512)
    mapping = mapped("H", 512, "output", "")
    with pytest.raises(ValueError, match=r"on cpu needs .*: array_size, clock_hz, vector_lanes\."):
        fused_cost(find_chip("cpu"), shape, mapping)
    with pytest.raises(ValueError, match=r"on cpu needs .*: array_size\. .* chips\.$"):
        fused_cost(find_chip("cpu"), shape, mapping, charge_softmax=False)
    without = dataclasses.replace(find_chip("tpu-v4"), vector_lanes=None)
    with pytest.raises(ValueError, match=r"tpu-v4 .*: vector_lanes\. .*with softmax free, neither"):
        unfused_cost(without, shape, mapping)


def test_impossible_mappings_are_refused():
    chip, shape = find_chip("flat-edge"), FLAT_MODELS["bert-base"].shape(512)
    odd = AttentionMapping(
        granularity="R",
        scores_on_chip=True,
        logit=OperatorMapping(rows=64, stationarity="output"),
        attend=OperatorMapping(rows=32, stationarity="output"),
    )
    with pytest.raises(ValueError, match="cannot have tiles of 64 and 32 rows"):
        fused_cost(chip, shape, odd)
    with pytest.raises(ValueError, match="1 to 512 rows, got 1024"):
        fused_cost(chip, shape, mapped("R", 1024, "output", ""))
    with pytest.raises(ValueError, match="granularity B a tile has all 512 rows, got 64"):
        fused_cost(chip, shape, mapped("B", 64, "output", ""))
    with pytest.raises(ValueError, match="granularity M, got R"):
        unfused_cost(chip, shape, mapped("R", 64, "output", ""))
    with pytest.raises(ValueError, match="1 to 512 rows, got 1024"):
        unfused_cost(chip, shape, mapped("M", 1024, "output", ""))
    with pytest.raises(ValueError, match=r"among Q, K and V, got \['O'\]"):
        OperatorMapping(rows=1, stationarity="output", on_chip=("O",))
