import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.planning import (
    Fabric,
    Slice,
    Switch,
    Wiring,
    all_slices,
    machine_states,
    parse_slice,
    switches,
    topology_links,
    wired_links,
)

SMALL = [each for each in all_slices(8 * 64) if each.cubes]


def wired(name: str, *cubes: int) -> Wiring:
    return Wiring(parse_slice(name), cubes)


def mesh_of(cube: int) -> set[frozenset[tuple[int, int, int, int]]]:
    """The links of a cube that no switch makes: between chips at a distance of one."""
    chips = list(itertools.product(range(4), repeat=3))
    pairs = itertools.combinations(chips, 2)
    near = [p for p in pairs if sum(abs(a - b) for a, b in zip(*p, strict=True)) == 1]
    return {frozenset((cube, *chip) for chip in pair) for pair in near}


def test_a_machine_is_wired_with_what_the_paper_counts():
    machine = Fabric()
    assert machine.chips == 4096
    assert machine.link_ends_per_cube == 384
    assert machine.electrical_links_per_cube == 144
    assert machine.fibres_per_cube == 96
    assert machine.switches == 48
    assert (machine.ports_used, machine.switch_ports) == (128, 136)
    assert machine.fibres == 6144
    assert (machine.optical_links, machine.links) == (3072, 12288)


def test_counts_of_a_machine_agree_with_each_other():
    machine = Fabric()
    assert machine.link_ends_per_cube == 2 * machine.electrical_links_per_cube + (
        machine.fibres_per_cube
    )
    assert machine.fibres == machine.cubes * machine.fibres_per_cube
    assert machine.switches == machine.fibres_per_cube // 2
    assert 2 * machine.links == machine.cubes * machine.link_ends_per_cube


def test_the_links_of_a_whole_machine_are_as_many_as_counted():
    whole = Wiring(Slice((16, 16, 16)), tuple(range(64)))
    links = wired_links(whole.states())
    assert len(links) == Fabric().links
    between = [link for link in links if len({chip[0] for chip in link}) == 2]
    assert len(between) == Fabric().optical_links


@pytest.mark.parametrize(
    "each", [*SMALL, *map(parse_slice, ["8x8x16_T", "8x16x16_T", "16x16x16"])], ids=str
)
def test_switches_make_the_links_of_the_topology_on_any_cubes(each):
    cubes = random.Random(each.chips).sample(range(64), each.cubes)
    wiring = Wiring(each, tuple(cubes))
    assert wired_links(wiring.states()) == topology_links(wiring)


def test_cubes_of_another_order_or_another_twist_give_other_links():
    regular, twisted = wired("4x8x8", 1, 2, 3, 4), wired("4x8x8_T", 1, 2, 3, 4)
    assert wired_links(regular.states()) != topology_links(twisted)
    assert wired_links(wired("4x4x12", 1, 2, 3).states()) == wired_links(
        wired("4x4x12", 2, 3, 1).states()  # a ring, turned
    )
    assert wired_links(wired("4x4x16", 1, 2, 3, 4).states()) != wired_links(
        wired("4x4x16", 1, 3, 2, 4).states()
    )


@pytest.mark.parametrize("each", SMALL, ids=str)
def test_every_switch_joins_each_cube_once_up_and_once_down(each):
    cubes = random.Random(1).sample(range(64), each.cubes)
    states = Wiring(each, tuple(cubes)).states()
    assert set(states) == set(switches())
    for state in states.values():
        assert sorted(state) == sorted(state.values()) == sorted(cubes)


def test_a_twist_changes_the_switches_of_short_axes_alone():
    for name, changed in [("4x4x8", {0, 1}), ("4x8x8", {0})]:
        cubes = (9, 4, 61, 30)[: parse_slice(name).cubes]
        regular, twisted = wired(name, *cubes).states(), wired(name + "_T", *cubes).states()
        assert {s.axis for s in switches() if regular[s] != twisted[s]} == changed
        # The mesh in each cube is there in both, whatever else is.
        mesh = {link for cube in cubes for link in mesh_of(cube)}
        assert wired_links(regular) >= mesh
        assert wired_links(twisted) >= mesh


def test_a_lone_cube_is_joined_to_itself():
    assert wired("4x4x4", 7).permutation(2) == {7: 7}


def test_the_permutations_of_a_twist():
    twisted = wired("4x8x8_T", 10, 11, 12, 13)  # (y, z): 10 = 00, 11 = 01, 12 = 10, 13 = 11
    assert twisted.permutation(0) == {10: 13, 11: 12, 12: 11, 13: 10}
    assert twisted.permutation(1) == {10: 12, 11: 13, 12: 10, 13: 11}
    assert twisted.permutation(2) == {10: 11, 11: 10, 12: 13, 13: 12}


@settings(max_examples=10)
@given(data=st.data())
def test_slices_that_run_together_stay_apart(data):
    free = data.draw(st.permutations(range(64)))
    wirings = []
    for each in data.draw(st.lists(st.sampled_from(SMALL), min_size=1, max_size=4)):
        wirings.append(Wiring(each, tuple(free[: each.cubes])))
        free = free[each.cubes :]
    together = machine_states(wirings)
    for state in together.values():
        assert len(set(state.values())) == len(state)
    links = wired_links(together)
    assert links == frozenset().union(*map(topology_links, wirings))
    owner = {cube: place for place, wiring in enumerate(wirings) for cube in wiring.cubes}
    assert all(len({owner[chip[0]] for chip in link}) == 1 for link in links)


def test_each_fibre_of_a_cube_ends_at_one_switch():
    ends = [s.chip(5, upper=up) for s in switches() for up in (True, False)]
    assert len(ends) == Fabric().fibres_per_cube
    outside = [p for p in itertools.product(range(4), repeat=3) for at in p if at in (0, 3)]
    assert sorted(ends) == sorted((5, *place) for place in outside)
    assert Switch(1, 2, 3).chip(5, upper=True) == (5, 2, 3, 3)
    assert Switch(1, 2, 3).chip(5, upper=False) == (5, 2, 0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wired("2x4x4", 0), r"2x4x4 is a part of one cube"),
        (lambda: wired("4x4x8", 0), r"4x4x8 needs 2 cubes, got 1"),
        (lambda: wired("4x4x12", 3, 4, 3), r"used once, got \[3\] more often"),
        (lambda: wired("4x4x8", 3, -1), r"numbered from 0, got -1"),
        (lambda: wired("4x4x4", 0).chip((4, 0, 0)), r"4x4x4 has no chip at \(4, 0, 0\)"),
        (lambda: wired("4x4x4", 0).chip((0, 0)), r"has no chip at \(0, 0\)"),
        (lambda: Switch(3, 0, 0), r"axis from 0 to 2, .* got 3, 0 and 0"),
        (lambda: Switch(0, 4, 0), r"row and a column from 0 to 3; got 0, 4 and 0"),
        (lambda: Fabric(cubes=0), r"1 cube or more and .* got 0 and 8"),
        (
            lambda: machine_states([wired("4x4x8", 0, 1), wired("4x4x4", 1)]),
            r"slices 4x4x8 and 4x4x4 both use cube 1",
        ),
        (
            lambda: machine_states([wired("4x4x4", 64)]),
            r"4x4x4 uses cube 64, and the machine's are 0 to 63",
        ),
        (
            lambda: machine_states([wired("4x4x4", 8)], Fabric(cubes=8)),
            r"uses cube 8, and the machine's are 0 to 7",
        ),
    ],
)
def test_impossible_wirings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
