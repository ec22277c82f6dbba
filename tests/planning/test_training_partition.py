import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import (
    Mesh,
    TrainingPartition,
    find_shape,
    parse_partition,
    partitions_of,
    slices_of,
)
from gossamer.planning.training_partition import all_factor_axes, check_partition, factor_axes

GPT = find_shape("gpt-3-175b")
TABLE_3 = {
    "[1,1,16,32] 2D/2D": (4, 8, 16),
    "[1,1,64,8] 1D/2D": (8, 8, 8),
    "[8,1,8,8] 2D/2D": (8, 8, 8),
    "[16,4,1,8] 1D/1D": (4, 8, 16),
}
"""Partitions of Jouppi et al. 2023, arXiv 2304.01433, table 3, and their slices."""


@pytest.mark.parametrize(("name", "sizes"), TABLE_3.items())
def test_the_papers_partitions_lie_on_their_slices_and_are_printed_as_there(name, sizes):
    partition = parse_partition(name)
    assert str(partition) == name
    assert partition.chips == 512
    assert factor_axes(partition, Mesh.of(*sizes))
    assert partition in partitions_of(Mesh.of(*sizes))


@pytest.mark.parametrize("sizes", [(8, 8, 8), (4, 4, 32)])
def test_a_partition_of_one_slice_need_not_lie_on_another(sizes):
    with pytest.raises(ValueError, match="Near it are "):
        factor_axes(parse_partition("16,2,2,8"), Mesh.of(*sizes))


@given(st.integers(1, 16).map(lambda cubes: 64 * cubes), st.data())
def test_factors_multiply_to_the_chips_and_every_axis_serves_one_factor(chips, data):
    mesh = Mesh.of(*data.draw(st.sampled_from(slices_of(chips))).sizes)
    for axes in all_factor_axes(mesh):
        assert math.prod(axes.factors) == chips
        used = (*axes.pipeline, *axes.data, *axes.model1, *axes.model2)
        assert sorted(axis.size for axis in used) == sorted(axis.size for axis in mesh.axes)
    partitions = partitions_of(mesh)
    assert len(set(partitions)) == len(partitions)
    assert {each.chips for each in partitions} == {chips}


@given(*(st.integers(1, 64) for _ in range(4)), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_a_partition_is_read_as_it_is_printed(pipeline, data, model1, model2, one, other):
    partition = TrainingPartition(
        pipeline=pipeline,
        data=data,
        model1=model1,
        model2=model2,
        activations=one,
        weights=other,
    )
    assert parse_partition(str(partition)) == partition


@pytest.mark.parametrize("name", ["8,8,8", "[1,2,3,4", "a,b,c,d", "1,1,1,1 3D/1D", "1,1,1,1 2D"])
def test_other_names_are_refused_with_an_example(name):
    if name == "[1,2,3,4":  # brackets are for the eye
        assert parse_partition(name).chips == 24
        return
    with pytest.raises(ValueError, match=r"like \[8,1,8,8\] 2D/2D; got"):
        parse_partition(name)


def test_what_does_not_divide_is_named_all_together():
    partition = TrainingPartition(pipeline=5, data=7, model2=36)
    with pytest.raises(ValueError, match="96 layers do not divide into 5 stages") as error:
        check_partition(partition, GPT, batch=16)
    assert "96 heads do not divide into 36 parts of model2" in str(error.value)
    assert "16 sequences do not divide into 7 parts" in str(error.value)


def test_two_dimensions_need_a_width_that_divides():
    check_partition(TrainingPartition(model1=5, model2=3), GPT, batch=5)
    with pytest.raises(ValueError, match="12288 rows of d_model do not divide into 5 parts"):
        check_partition(TrainingPartition(model1=5, weights=2), GPT, batch=5)


def test_chips_and_factors_are_checked():
    with pytest.raises(ValueError, match="is for 8 chips, and 4x4x4 has 64"):
        factor_axes(TrainingPartition(data=8), Mesh.of(4, 4, 4))
    with pytest.raises(ValueError, match="need to be 1 or more"):
        TrainingPartition(data=0)
