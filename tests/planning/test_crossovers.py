import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import (
    Mesh,
    best_gathered_chips,
    best_gathered_volume,
    best_volume_2d,
    best_x,
    chips_from_which_2d_wins,
    crossover_tokens,
    find_shape,
    half_width,
    layout_volume,
)

CUBE = Mesh.of(4, 4, 4)
FIGURE_3_SIZES = {"d_model": 16384, "width": 65536}
# Pope et al. 2022, figure 3: GB a chip and layer of ws-2d, wg-x, wg-xy and wg-xyz, by tokens.
FIGURE_3 = {
    2048: (0.0671, 0.3020, 1.0821, 4.2950),
    8192: (0.2684, 0.4027, 1.1073, 4.2950),
    16384: (0.5369, 0.5369, 1.1409, 4.2950),
    65536: (2.1475, 1.3422, 1.3422, 4.2950),
    131072: (4.2950, 2.4159, 1.6106, 4.2950),
    262144: (8.5899, 4.5634, 2.1475, 4.2950),
    524288: (17.180, 8.8584, 3.2212, 4.2950),
    1048576: (34.360, 17.448, 5.3687, 4.2950),
    4194304: (137.44, 68.988, 18.254, 4.2950),
    16777216: (549.76, 275.15, 69.793, 4.2950),
}
GATHERING = ("ws-2d", "wg-x", "wg-xy", "wg-xyz")
sizes = st.integers(1, 10**6)


@pytest.mark.parametrize("layout", GATHERING)
def test_volumes_are_those_of_figure_3(layout):
    tokens = np.array(list(FIGURE_3))
    want = [row[GATHERING.index(layout)] for row in FIGURE_3.values()]
    got = 2 * layout_volume(layout, CUBE, tokens=tokens, **FIGURE_3_SIZES) / 1e9
    # Half a unit of the last of four digits, and of five.
    np.testing.assert_allclose(np.broadcast_to(got, tokens.shape), want, rtol=5e-4)


def test_crossovers_are_the_exact_ones_of_figure_3():
    pairs = (("ws-2d", "wg-x"), ("wg-x", "wg-xy"), ("wg-xy", "wg-xyz"), ("ws-2d", "wg-xyz"))
    got = [crossover_tokens(*pair, CUBE, **FIGURE_3_SIZES) for pair in pairs]
    assert got == [16384, 65536, 786432, 131072]
    halved = [crossover_tokens(*pair, CUBE, weight_bytes=1, **FIGURE_3_SIZES) for pair in pairs]
    assert halved == [tokens / 2 for tokens in got]


@given(
    x=st.integers(1, 9),
    y=st.integers(1, 9),
    z=st.integers(2, 9),
    d_model=sizes,
    width=sizes,
)
def test_crossovers_are_the_closed_forms(x, y, z, d_model, width):
    both = {"d_model": d_model, "width": width}
    mesh = Mesh.of(x, y, z)
    direct = d_model * width / (d_model / x + width / (y * z))
    assert crossover_tokens("ws-2d", "wg-xyz", mesh, **both) == pytest.approx(direct)
    if x > 1:
        assert crossover_tokens("ws-2d", "wg-x", mesh, **both) == pytest.approx(d_model)
    if y > 1:
        between = width * x / z
        assert crossover_tokens("wg-x", "wg-xy", mesh, **both) == pytest.approx(between)
    last = width * x * y * (1 - 1 / z)
    assert crossover_tokens("wg-xy", "wg-xyz", mesh, **both) == pytest.approx(last)


@given(
    pair=st.sampled_from([("ws-2d", "wg-x"), ("wg-x", "wg-xy"), ("wg-xy", "wg-xyz")]),
    d_model=sizes,
    width=sizes,
    weight_bytes=st.floats(0.25, 4),
)
def test_at_a_crossover_both_layouts_move_the_same_bytes(pair, d_model, width, weight_bytes):
    both = {"d_model": d_model, "width": width}
    tokens = crossover_tokens(*pair, CUBE, weight_bytes=weight_bytes, **both)

    def moved(layout):
        weights = layout_volume(layout, CUBE, tokens=0, **both)
        everything = layout_volume(layout, CUBE, tokens=tokens, **both)
        return weight_bytes * weights + 2 * (everything - weights)

    assert moved(pair[0]) == pytest.approx(moved(pair[1]), rel=1e-9)


def test_the_whole_block_of_palm_540b_switches_where_measured():
    palm = find_shape("palm-540b-padded")
    block = {"d_model": 18432, "width": half_width(palm)}
    pairs = (("ws-2d", "wg-x"), ("wg-x", "wg-xy"), ("wg-xy", "wg-xyz"))
    got = [crossover_tokens(*pair, CUBE, **block) for pair in pairs]
    assert got == [18432, 126976, 1523712]
    direct = crossover_tokens("ws-2d", "wg-xyz", CUBE, **block)
    assert direct == pytest.approx(187e3, rel=1e-2)
    assert 131072 < direct < 262144  # figure 7
    assert crossover_tokens("ws-2d", "wg-xyz", CUBE, weight_bytes=1, **block) == direct / 2


def test_optima_are_the_papers_for_a_layer_of_two_matrices():
    assert best_x(64, **FIGURE_3_SIZES) == 4
    assert best_x(256, **FIGURE_3_SIZES) == 8
    tokens, (e, f) = 4096, FIGURE_3_SIZES.values()
    for chips in (16, 64, 256):
        at_best = best_volume_2d(chips, tokens=tokens, **FIGURE_3_SIZES)
        assert at_best == pytest.approx(8 * tokens * e / chips**0.5)
        gathered = best_gathered_volume(chips, tokens=tokens, **FIGURE_3_SIZES)
        assert gathered == pytest.approx(4 * e * (tokens * f / chips) ** 0.5)
    assert chips_from_which_2d_wins(**FIGURE_3_SIZES) == 16
    whole = {"d_model": 18432, "width": half_width(find_shape("palm-540b-padded"))}
    assert best_x(64, **whole) == pytest.approx(3.05, abs=0.005)


@given(
    chips=st.integers(2, 4096),
    tokens=sizes,
    d_model=sizes,
    width=sizes,
    sublayers=st.integers(1, 2),
)
def test_optima_are_the_least_of_what_a_fine_search_finds(chips, tokens, d_model, width, sublayers):
    best = best_x(chips, d_model=d_model, width=width, sublayers=sublayers)
    x = best * np.exp(np.linspace(-3, 3, 601))
    volumes = 2 * tokens * (sublayers * d_model / x + width * x / chips)
    least = best_volume_2d(chips, tokens=tokens, d_model=d_model, width=width, sublayers=sublayers)
    assert volumes.argmin() == 300
    assert volumes.min() == pytest.approx(least)
    n = best_gathered_chips(chips, tokens=tokens, width=width) * np.exp(np.linspace(-3, 3, 601))
    gathered = 2 * d_model * width * n / chips + 2 * tokens * d_model / n
    assert gathered.argmin() == 300
    assert gathered.min() == pytest.approx(
        best_gathered_volume(chips, tokens=tokens, d_model=d_model, width=width)
    )


@given(d_model=sizes, width=sizes, factor=st.floats(1.01, 100))
def test_2d_moves_less_than_1d_just_from_the_number_of_chips_that_is_said(d_model, width, factor):
    least = chips_from_which_2d_wins(d_model=d_model, width=width)
    one = 2 * d_model
    assert 4 * (d_model * width / (least * factor)) ** 0.5 < one
    assert 4 * (d_model * width / (least / factor)) ** 0.5 > one


def test_a_layout_that_is_never_better_is_refused():
    with pytest.raises(ValueError, match="ws-2d on a mesh 4x4x4 moves no fewer activations"):
        crossover_tokens("wg-x", "ws-2d", CUBE, **FIGURE_3_SIZES)
