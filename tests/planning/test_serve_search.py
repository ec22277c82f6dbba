import dataclasses
import itertools
import time

import jaxtyping
import numpy as np
import pytest

from gossamer.planning import (
    ATTENTION_LAYOUTS,
    LAYOUTS,
    Mesh,
    find_chip,
    find_shape,
    meshes_of,
    search_serving,
    step_cost,
)
from gossamer.recipe import Recipe

TPU = find_chip("tpu-v4")
PALM = find_shape("palm-540b")
PALM_8B = find_shape("palm-8b")
MESHES = (Mesh.of(2, 2, 2), Mesh.of(4, 2, 2), Mesh.of(2, 4, 4))


def every_plan(phase, context, batches, weights, max_seconds):
    """Seconds and chip-ms a token of all plans that are possible, one by one."""
    for mesh, layout, attention, batch, bits in itertools.product(
        MESHES, LAYOUTS, ATTENTION_LAYOUTS, batches, weights
    ):
        try:
            cost = step_cost(
                PALM_8B,
                TPU,
                mesh,
                layout=layout,
                attention=attention,
                phase=phase,
                batch=batch,
                context=context,
                weights=bits,
                pad_heads=True,
            )
        except ValueError:
            continue
        if cost.seconds <= max_seconds:
            yield cost.seconds, cost.chip_ms_per_token


@pytest.mark.parametrize(
    ("phase", "max_seconds"), [("decode", 0.008), ("prefill", 1.0), ("prefill", 60.0)]
)
def test_the_front_is_what_comparing_all_pairs_leaves(phase, max_seconds):
    batches, weights = (1, 8, 32, 500), ("bf16", "int8")
    plans = set(every_plan(phase, 1024, batches, weights, max_seconds))
    want = {
        plan
        for plan in plans
        if not any(other != plan and other[0] <= plan[0] and other[1] <= plan[1] for other in plans)
    }
    found = search_serving(
        PALM_8B,
        TPU,
        phase=phase,
        context=1024,
        meshes=MESHES,
        batches=batches,
        weights=weights,
        max_seconds=max_seconds,
    )
    got = [(plan.cost.seconds, plan.cost.chip_ms_per_token) for plan in found.front]
    assert got == sorted(got)
    np.testing.assert_allclose(got, sorted(want), rtol=1e-12)
    assert found.considered == len(MESHES) * 5 * 2 * 4 * 2
    # Equal plans count each.
    possible = list(every_plan(phase, 1024, batches, weights, max_seconds))
    assert found.considered - sum(found.left_out.values()) == len(possible)


def test_a_plan_says_what_it_costs_alone():
    found = search_serving(
        PALM, TPU, phase="decode", context=2048, meshes=[Mesh.of(4, 4, 4)], weights=("int8",)
    )
    for plan in found.front:
        alone = step_cost(
            PALM,
            TPU,
            plan.mesh,
            layout=plan.layout,
            attention=plan.attention,
            phase="decode",
            batch=plan.batch,
            context=2048,
            weights="int8",
            cache=plan.cache,
            pad_heads=True,
        )
        for field in dataclasses.fields(alone):
            assert getattr(plan.cost, field.name) == pytest.approx(getattr(alone, field.name))


def test_sparser_and_narrower_weights_need_fewer_chips_at_equal_latency():
    def fewest(weights):
        found = search_serving(
            PALM,
            TPU,
            phase="decode",
            context=2048,
            meshes=[Mesh.of_chips(chips) for chips in (8, 16, 32, 64, 128)],
            weights=[weights],
            max_seconds=0.05,
        )
        return min(plan.mesh.chips for plan in found.front)

    recipes = [Recipe.load(name) for name in ("int8", "int4", "1:4-int4")]
    chips = [fewest(weights) for weights in ("bf16", *recipes)]
    assert chips == sorted(chips, reverse=True)
    assert chips[-1] < chips[0]


def test_twenty_thousand_candidates_take_less_than_two_seconds(monkeypatch):
    # As users run it: types are checked at run time only here, and that takes 9 times as long.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    meshes = meshes_of(TPU, 512)
    weights = ("bf16", "int8", "int4", Recipe.load("2:4-int4"), Recipe.load("1:4-int4"))
    batches = range(16, 16 * 13, 16)
    start = time.process_time()
    found = search_serving(
        PALM,
        TPU,
        phase="prefill",
        context=2048,
        meshes=meshes,
        batches=batches,
        weights=weights,
    )
    # Of this process, so that others do not count.
    assert time.process_time() - start < 2
    assert found.considered >= 20_000


def test_meshes_of_a_torus_are_its_slices_with_any_axis_as_x():
    found = [str(mesh) for mesh in meshes_of(TPU, 128)]
    assert len(set(found)) == len(found)
    assert found[-3:] == ["4x4x4", "4x4x8", "8x4x4"]
    flat = meshes_of(find_chip("tpu-v5e"), 8)
    assert {mesh.z.size for mesh in flat} == {1}
    assert sorted((mesh.x.size, mesh.y.size) for mesh in flat) == [
        (x, y) for x in (1, 2, 4, 8) for y in (1, 2, 4, 8) if x * y <= 8
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meshes": []}, r"\['meshes'\] are empty"),
        ({"batches": [0, 4]}, "batches of 1 or more"),
        ({"context": 0}, "needs a context and batches of 1 or more"),
        ({"max_seconds": -1.0}, "max_seconds needs to be above 0"),
        ({"max_seconds": 0.001}, r"takes at most 1 ms: the fastest that fits takes \d"),
        ({"meshes": [Mesh.of(1, 2, 2)]}, r"fits on none of the meshes: the least .* GiB more"),
        ({"meshes": [Mesh.of(32, 32, 8)]}, "Links join at most 4096 tpu-v4, and 8192 are more"),
        ({"meshes": [Mesh.of(5, 7, 1)]}, "No layout divides palm-540b over any of the meshes"),
    ],
)
def test_searches_without_an_answer_say_why(change, message):
    both = {"phase": "decode", "context": 2048, "meshes": [Mesh.of(4, 4, 4)]}
    with pytest.raises(ValueError, match=message):
        search_serving(PALM, TPU, **{**both, **change})


def test_meshes_end_where_links_do():
    assert max(mesh.chips for mesh in meshes_of(find_chip("h100-sxm"), 64)) == 8
    assert [str(mesh) for mesh in meshes_of(find_chip("cpu"), 64)] == ["1x1x1"]


def test_no_chips_have_no_meshes():
    with pytest.raises(ValueError, match="1 chip or more, got at most 0"):
        meshes_of(TPU, 0)
