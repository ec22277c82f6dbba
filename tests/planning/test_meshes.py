import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import Mesh


@pytest.mark.parametrize(
    ("chips", "sizes"),
    [(8, "2x2x2"), (16, "2x4x2"), (32, "4x2x4"), (64, "4x4x4"), (128, "8x4x4"), (256, "4x8x8")],
)
def test_meshes_are_those_of_the_released_program(chips, sizes):
    assert str(Mesh.of_chips(chips)) == sizes


@given(chips=st.integers(1, 300), torus_axes=st.sampled_from([0, 2, 3]))
def test_a_mesh_has_the_chips_asked_for(chips, torus_axes):
    mesh = Mesh.of_chips(chips, torus_axes)
    assert mesh.chips == chips
    assert torus_axes == 3 or torus_axes == 0 or mesh.z.size == 1


@pytest.mark.parametrize("chips", [1, 4, 12, 48, 96, 1000])
def test_other_meshes_are_as_near_to_a_cube_as_factors_allow(chips):
    boxes = [
        box
        for box in itertools.product(range(1, chips + 1), repeat=2)
        if chips % (box[0] * box[1]) == 0
    ]
    least = min(x + y + chips // (x * y) for x, y in boxes) if chips < 100 else 30
    assert sum(axis.size for axis in Mesh.of_chips(chips).axes) == least


@given(sizes=st.tuples(*[st.integers(1, 12)] * 3))
def test_axes_are_rings_where_their_length_is_a_multiple_of_4(sizes):
    mesh = Mesh.of(*sizes)
    assert [axis.wrapped for axis in mesh.axes] == [size % 4 == 0 for size in sizes]
    assert mesh.chips == math.prod(sizes)


def test_no_chips_are_refused():
    with pytest.raises(ValueError, match="1 chip or more, got 0"):
        Mesh.of_chips(0)
