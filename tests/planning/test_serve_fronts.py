import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import (
    Mesh,
    best_of,
    cheapest_within,
    find_chip,
    find_shape,
    search_serving,
    serving_plot,
)
from gossamer.planning.pareto import pareto

TPU, PALM = find_chip("tpu-v4"), find_shape("palm-62b")
MESHES = [Mesh.of_chips(chips) for chips in (8, 16, 32)]


def search(weights, **changes):
    return search_serving(
        PALM,
        TPU,
        **{"phase": "decode", "context": 2048, "meshes": MESHES, "weights": weights, **changes},
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_a_front_is_what_comparing_all_pairs_leaves(points):
    first, second = (np.array([point[axis] for point in points], float) for axis in (0, 1))
    want = {
        point
        for point in points
        if not any(
            other != point and other[0] <= point[0] and other[1] <= point[1] for other in points
        )
    }
    got = [points[place] for place in pareto(first, second)]
    assert got == sorted(want)


def test_fronts_of_separate_searches_together_are_that_of_one_search():
    both = search(["bf16", "int8"])
    apart = [search([bits]) for bits in ("bf16", "int8")]
    assert best_of([each.front for each in apart]) == both.front
    assert best_of([]) == ()


def test_the_smallest_slice_is_the_one_below_which_nothing_is_possible():
    found = search(["bf16"], max_seconds=0.016)
    assert found.smallest.cost.seconds <= 0.016
    smaller = [mesh for mesh in MESHES if mesh.chips < found.smallest.mesh.chips]
    assert smaller
    with pytest.raises(ValueError, match="No plan for palm-62b takes at most 16 ms"):
        search(["bf16"], max_seconds=0.016, meshes=smaller)


def test_the_cheapest_plan_within_a_latency_is_the_last_of_the_front_that_is_quick_enough():
    front = search(["bf16"]).front
    limit = front[len(front) // 2].cost.seconds
    assert cheapest_within(front, limit) is front[len(front) // 2]
    assert cheapest_within(front, front[0].cost.seconds / 2) is None


def test_fronts_are_drawn_beside_each_other():
    fronts = {bits: search([bits]).front for bits in ("bf16", "int8")}
    drawn = serving_plot(fronts, title="PaLM")
    assert drawn.startswith(b"\x89PNG")
    assert drawn != serving_plot({"bf16": fronts["bf16"]}, title="PaLM")
