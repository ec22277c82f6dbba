import numpy as np
import pytest

from gossamer.planning import (
    PACKET_BYTES,
    Topology,
    mesh,
    simulate_all_to_all,
    torus,
    twisted_torus,
)

TWISTS = [((4, 4, 8), 1.63), ((4, 8, 8), 1.31)]  # Jouppi et al. 2023, figure 6


@pytest.mark.parametrize(("sizes", "measured"), TWISTS)
def test_packets_gain_by_a_twist_what_was_measured_and_no_more_than_link_loads_say(sizes, measured):
    regular, twisted = torus(sizes), twisted_torus(sizes)
    runs = [simulate_all_to_all(topology, packets_per_pair=4) for topology in (regular, twisted)]
    gain = runs[0].steady_load / runs[1].steady_load
    assert gain == pytest.approx(measured, rel=0.08)
    assert gain <= regular.max_link_load / twisted.max_link_load
    # Queues run empty now and then: a few percent above the loads without any.
    for topology, run in zip((regular, twisted), runs, strict=True):
        assert 0.98 < run.steady_load / topology.max_link_load < 1.06


def test_a_narrow_window_costs_the_twist_more_and_stays_near_what_was_measured():
    runs = [
        simulate_all_to_all(t((4, 4, 8)), packets_per_pair=4, window=16)
        for t in (torus, twisted_torus)
    ]
    gain = runs[0].steady_load / runs[1].steady_load
    assert gain == pytest.approx(1.63, rel=0.08)


def test_a_wrong_twist_gains_less_packet_by_packet_too():
    wrong = Topology((4, 4, 8), ((0, 0, 4), (0, 0, 0), (0, 0, 0)))
    loads = [
        simulate_all_to_all(t, packets_per_pair=4).steady_load for t in (torus((4, 4, 8)), wrong)
    ]
    assert loads[0] / loads[1] <= 1.53


@pytest.mark.parametrize(
    "topology", [torus((4, 6)), mesh((3, 4)), twisted_torus((2, 4, 4)), torus((5,))], ids=str
)
def test_every_packet_takes_a_shortest_path(topology):
    run = simulate_all_to_all(topology, packets_per_pair=3)
    assert run.packets == 3 * topology.chips * (topology.chips - 1)
    assert run.link_packets.sum() == 3 * topology.distance_sums.sum()
    assert run.steps >= run.link_packets.max()  # a link sends one a step


@pytest.mark.parametrize("topology", [mesh((4, 4)), twisted_torus((4, 8))], ids=str)
def test_links_carry_on_average_the_loads_of_equal_splits(topology):
    rounds = 50
    run = simulate_all_to_all(topology, packets_per_pair=rounds)
    counts, loads = run.link_packets / rounds, topology.link_loads
    # A pair's packet takes a link or not: at most the variance of a Poisson count, here to 5 sigma.
    assert (np.abs(counts - loads) <= 5 * np.sqrt(loads / rounds)).all()


def test_two_chips_send_a_packet_a_step():
    run = simulate_all_to_all(torus((2,)), packets_per_pair=50)
    assert (run.steps, run.packets) == (50, 100)
    assert run.steady_load == pytest.approx(1.0)
    assert run.seconds(link_bandwidth=50e9) == pytest.approx(50 * PACKET_BYTES / 50e9)


def test_three_chips_in_a_line_wait_for_each_packet_if_the_window_is_one():
    slow, fast = (
        simulate_all_to_all(mesh((3,)), packets_per_pair=40, window=window) for window in (1, 64)
    )
    assert slow.steps >= 40 * (1 + 2)  # a chip at an end: one hop to one chip, two to the other
    assert fast.steps < 40 * 2 * 1.1  # its link carries two packets a round


def test_a_seed_repeats_and_another_differs():
    first, again, other = (
        simulate_all_to_all(torus((4, 4)), packets_per_pair=2, seed=seed) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.link_packets, again.link_packets)
    assert first.steps == again.steps
    assert (first.link_packets != other.link_packets).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate_all_to_all(torus((1,))), r"between 2 and 1024 chips, got 1;"),
        (lambda: simulate_all_to_all(torus((8, 16, 16))), r"2 and 1024 chips, got 2048; link"),
        (lambda: simulate_all_to_all(torus((4,)), packets_per_pair=0), r"1 or more, got 0 and 64"),
        (lambda: simulate_all_to_all(torus((4,)), window=0), r"1 or more, got 8 and 0"),
        (
            lambda: simulate_all_to_all(torus((8, 8, 8)), packets_per_pair=100),
            r"100 packets for each of 261632 pairs .* at most 64 fit",
        ),
    ],
)
def test_impossible_runs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
