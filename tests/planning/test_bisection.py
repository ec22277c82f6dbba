import itertools

import numpy as np
import pytest

from gossamer.planning import Topology, best_cut, mesh, torus, twisted_torus


@pytest.mark.parametrize(
    ("topology", "links"),
    [
        (torus((4, 4, 8)), 32),
        (twisted_torus((4, 4, 8)), 64),
        (torus((4, 8, 8)), 64),
        (twisted_torus((4, 8, 8)), 128),
        (torus((8, 8, 8)), 128),
    ],
)
def test_cuts_are_as_narrow_as_the_best_known(topology, links):
    assert best_cut(topology).links == links


def crossed(topology: Topology, side: np.ndarray) -> int:
    pairs = enumerate(topology.neighbours.tolist())
    return sum(bool(side[a] and not side[b]) for a, row in pairs for b in row if b >= 0)


@pytest.mark.parametrize(
    "topology",
    [mesh((2,)), mesh((3, 3)), torus((7,)), torus((3, 4)), twisted_torus((2, 4)), mesh((2, 2, 3))],
    ids=str,
)
def test_the_best_cut_of_few_chips_is_the_best_of_all(topology):
    cut = best_cut(topology)
    assert cut.side.sum() == topology.chips // 2
    assert cut.links == crossed(topology, cut.side)
    best = min(
        crossed(topology, np.isin(np.arange(topology.chips), half))
        for half in itertools.combinations(range(topology.chips), topology.chips // 2)
    )
    assert cut.links == best


def test_the_same_seed_finds_the_same_cut():
    first, again = (best_cut(twisted_torus((4, 4, 8)), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.side, again.side)


def test_more_starts_never_widen_the_cut():
    wrong = Topology((4, 4, 8), ((0, 0, 2), (0, 0, 2), (0, 0, 0)))
    widths = [best_cut(wrong, starts=starts).links for starts in (0, 2, 6)]
    assert widths == sorted(widths, reverse=True)


def test_one_chip_cannot_be_cut():
    with pytest.raises(ValueError, match="2 chips or more, got 1"):
        best_cut(torus((1, 1)))
