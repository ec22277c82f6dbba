import itertools

import numpy as np
import pytest

from gossamer.planning import (
    Topology,
    is_edge_symmetric,
    is_vertex_symmetric,
    mesh,
    torus,
    twisted_torus,
)


@pytest.mark.parametrize("sizes", [(4, 2), (4, 4, 8), (4, 8, 8), (8, 8, 16)])
def test_twisted_tori_are_symmetric_in_chips_and_links(sizes):
    assert is_vertex_symmetric(twisted_torus(sizes))
    assert is_edge_symmetric(twisted_torus(sizes))


@pytest.mark.parametrize("sizes", [(4, 4, 8), (4, 8, 8), (8, 8, 16)])
def test_regular_tori_of_unequal_axes_are_symmetric_in_chips_alone(sizes):
    assert is_vertex_symmetric(torus(sizes))
    assert not is_edge_symmetric(torus(sizes))


@pytest.mark.parametrize(
    "seams",
    [
        ((0, 0, 4), (0, 0, 0), (0, 0, 0)),
        ((0, 0, 2), (0, 0, 2), (0, 0, 0)),
        # The nearest miss: on average shorter ways than the twist, 435 hops for 440, but unequal.
        ((0, 0, 3), (0, 0, 3), (0, 0, 0)),
    ],
)
def test_wrong_twists_are_not_symmetric_in_links(seams):
    assert is_vertex_symmetric(Topology((4, 4, 8), seams))
    assert not is_edge_symmetric(Topology((4, 4, 8), seams))


def automorphisms(topology: Topology) -> list[tuple[int, ...]]:
    """All of them, by trying every permutation of the chips."""
    table = np.zeros((topology.chips,) * 2, bool)
    for chip, around in enumerate(topology.neighbours):
        table[chip, around[around >= 0]] = True
    every = itertools.permutations(range(topology.chips))
    return [order for order in every if np.array_equal(table[np.ix_(order, order)], table)]


@pytest.mark.parametrize(
    "topology",
    [
        mesh((2,)),
        mesh((3,)),
        mesh((4,)),
        mesh((2, 3)),
        mesh((1, 2, 2)),
        torus((5,)),
        torus((2, 3)),
        torus((2, 2)),
        Topology((2, 3), ((0, 1), (0, 0))),
        Topology((2, 3), ((0, 1), (1, 0))),
        Topology((3, 2), (None, (0, 0))),
    ],
    ids=lambda topology: f"{topology}{topology.seams}",
)
def test_the_search_agrees_with_trying_all_permutations(topology):
    maps = automorphisms(topology)
    chips = {order[0] for order in maps}
    assert is_vertex_symmetric(topology) == (len(chips) == topology.chips)
    edges = {
        frozenset({a, b})
        for a, row in enumerate(topology.neighbours.tolist())
        for b in row
        if b >= 0
    }
    first = sorted(next(iter(edges)))
    images = {frozenset(order[chip] for chip in first) for order in maps}
    assert is_edge_symmetric(topology) == (images == edges)


def test_a_topology_without_links_is_symmetric():
    assert is_vertex_symmetric(mesh((1,)))
    assert is_edge_symmetric(mesh((1,)))
