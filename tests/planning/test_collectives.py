import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.planning import (
    Axis,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    mesh,
    parse_slice,
    reduce_scatter_seconds,
    routed_all_to_all_seconds,
    torus,
)

LINK = 50e9
COLLECTIVES = [
    all_gather_seconds,
    reduce_scatter_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
]


def ring_gather_steps(chips: int) -> int:
    """Steps in which each chip passes one part on, either way, until all chips have all parts."""
    held = [{chip} for chip in range(chips)]
    up, down = list(range(chips)), list(range(chips))  # what each chip got last from either side
    steps = 0
    while any(len(parts) < chips for parts in held):
        up = [up[chip - 1] for chip in range(chips)]
        down = [down[(chip + 1) % chips] for chip in range(chips)]
        for chip, parts in enumerate(held):
            parts |= {up[chip], down[chip]}
        steps += 1
    return steps


@pytest.mark.parametrize("chips", [3, 5, 7, 9])
def test_a_gather_on_an_odd_ring_takes_the_steps_of_passing_parts_on(chips):
    gathered = 1e6 * chips
    want = ring_gather_steps(chips) * 1e6 / LINK
    assert all_gather_seconds(gathered, [Axis(chips)], link_bandwidth=LINK) == pytest.approx(want)


def test_a_gather_on_a_line_passes_all_but_one_part_over_one_link():
    got = all_gather_seconds(8e6, [Axis(8, wrapped=False)], link_bandwidth=LINK)
    assert got == pytest.approx(7e6 / LINK)


def test_an_all_reduce_over_a_ring_and_over_a_whole_slice():
    # Two passes of (k - 1) / k of the bytes, over two links of a ring, six of a cube.
    ring = all_reduce_seconds(1e9, [Axis(8)], link_bandwidth=LINK)
    assert ring == pytest.approx(2 * 1e9 * 7 / 8 / (2 * LINK))
    cube = all_reduce_seconds(1e9, [Axis(8)] * 3, link_bandwidth=LINK)
    assert cube == pytest.approx(2 * 1e9 * 511 / 512 / (6 * LINK))


def test_wraparound_doubles_the_bandwidth_of_every_collective():
    # Jouppi et al. 2023, section 2, for bisection and all-reduce.
    for collective in COLLECTIVES:
        ring = collective(1e9, [Axis(8)] * 3, link_bandwidth=LINK)
        line = collective(1e9, [Axis(8, wrapped=False)] * 3, link_bandwidth=LINK)
        assert line == pytest.approx(2 * ring)


def test_an_axis_of_two_chips_has_one_link_and_of_one_chip_none():
    assert Axis(2).bandwidth(LINK) == Axis(2, wrapped=False).bandwidth(LINK) == LINK
    assert Axis(1).bandwidth(LINK) == 0.0
    assert (Axis(1).hops, Axis(2).hops, Axis(8).hops, Axis(8, wrapped=False).hops) == (0, 1, 4, 7)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_nothing_is_sent_over_axes_of_one_chip(collective):
    for axes in ([], [Axis(1), Axis(1)]):
        assert collective(1e9, axes, link_bandwidth=LINK, hop_seconds=1e-6) == 0.0
    together = collective(1e9, [Axis(1), Axis(4)], link_bandwidth=LINK)
    assert together == collective(1e9, [Axis(4)], link_bandwidth=LINK)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_small_messages_take_as_long_as_the_hops(collective):
    got = collective(1.0, [Axis(4), Axis(8)], link_bandwidth=LINK, hop_seconds=1e-6)
    passes = 2 if collective is all_reduce_seconds else 1
    assert got == pytest.approx(passes * (2 + 4) * 1e-6)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_many_sizes_are_asked_at_once(collective):
    sizes = np.array([0.0, 1e3, 1e6, 1e9])
    axes = [Axis(4), Axis(6, wrapped=False)]
    link = {"link_bandwidth": LINK, "hop_seconds": 1e-6}
    want = [float(collective(float(size), axes, **link)) for size in sizes]
    np.testing.assert_allclose(collective(sizes, axes, **link), want)


EVEN = st.lists(st.sampled_from([2, 4, 6, 8]), min_size=1, max_size=3)


@settings(max_examples=20)
@given(sizes=EVEN, pair_bytes=st.floats(1.0, 1e9))
def test_all_to_all_on_axes_agrees_with_link_loads_on_regular_even_tori(sizes, pair_bytes):
    topology = torus(sizes)
    held = pair_bytes * topology.chips  # what a chip keeps is held as well
    axes = [Axis(size) for size in sizes]
    want = routed_all_to_all_seconds(pair_bytes, topology, link_bandwidth=LINK)
    assert all_to_all_seconds(held, axes, link_bandwidth=LINK) == pytest.approx(want, rel=1e-9)


@settings(max_examples=20)
@given(sizes=EVEN)
def test_all_to_all_on_axes_has_the_hops_of_the_diameter(sizes):
    got = all_to_all_seconds(0.0, [Axis(s) for s in sizes], link_bandwidth=LINK, hop_seconds=1e-6)
    want = routed_all_to_all_seconds(0.0, torus(sizes), link_bandwidth=LINK, hop_seconds=1e-6)
    assert got == pytest.approx(want)


@pytest.mark.parametrize("chips", [2, 4, 8])
def test_all_to_all_on_an_even_line_agrees_with_link_loads(chips):
    want = routed_all_to_all_seconds(1e6, mesh((chips,)), link_bandwidth=LINK)
    got = all_to_all_seconds(1e6 * chips, [Axis(chips, wrapped=False)], link_bandwidth=LINK)
    assert got == pytest.approx(want)


def test_all_to_all_on_a_mesh_is_slower_if_all_shortest_paths_are_used():
    want = all_to_all_seconds(512e6, [Axis(8, wrapped=False)] * 3, link_bandwidth=LINK)
    got = routed_all_to_all_seconds(1e6, mesh((8, 8, 8)), link_bandwidth=LINK)
    # Axis after axis, the links that halve a line of 8 carry 4 x 4 x 64 pairs.
    assert want == pytest.approx(4 * 4 * 64 * 1e6 / LINK)
    assert got / want == pytest.approx(1.81, abs=0.005)


@pytest.mark.parametrize("chips", [3, 5, 7])
def test_all_to_all_on_an_odd_ring_is_a_little_faster_than_the_formula_says(chips):
    routed = routed_all_to_all_seconds(1e6, torus((chips,)), link_bandwidth=LINK)
    formula = all_to_all_seconds(1e6 * chips, [Axis(chips)], link_bandwidth=LINK)
    assert routed / formula == pytest.approx(1 - 1 / chips**2)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("4x4x4", 98.4),
        ("4x4x8", 49.6),
        ("4x4x8_T", 86.6),
        ("4x8x8", 49.8),
        ("4x8x8_T", 69.3),
        ("8x8x8", 49.9),
        ("8x8x16", 25.0),
        ("8x8x16_T", 43.0),
        ("16x16x16", 25.0),
    ],
)
def test_a_chip_sends_at_the_known_rates(name, gigabytes):
    topology = parse_slice(name).topology
    seconds = routed_all_to_all_seconds(1.0, topology, link_bandwidth=LINK)
    assert (topology.chips - 1) / seconds / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_routed_all_to_all_of_embeddings_on_128_chips():
    # 4096 samples a chip, vectors of 128 float32: 2,080,768 bytes leave each chip.
    pair_bytes = 2_080_768 / 127
    for name, microseconds in [("4x4x8", 41.94), ("4x4x8_T", 24.03)]:
        topology = parse_slice(name).topology
        got = routed_all_to_all_seconds(pair_bytes, topology, link_bandwidth=LINK)
        assert 1e6 * got == pytest.approx(microseconds, abs=0.005)


def test_routed_all_to_all_asks_many_sizes_at_once_and_waits_for_hops():
    topology = parse_slice("4x4x8_T").topology
    got = routed_all_to_all_seconds(
        np.array([0.0, 1e6]), topology, link_bandwidth=LINK, hop_seconds=1e-6
    )
    np.testing.assert_allclose(got, [6e-6, 1e6 * 220 / 3 / LINK])
    one = routed_all_to_all_seconds(1e6, torus((1,)), link_bandwidth=LINK, hop_seconds=1e-6)
    assert one == 0.0


def test_an_axis_without_chips_is_refused():
    with pytest.raises(ValueError, match="1 chip or more, got 0"):
        Axis(0)
