import itertools
import math

import pytest

from gossamer.planning import Slice, all_slices, mesh, parse_slice, slices_of, torus, twisted_torus


def shapes_of(chips: int) -> set[tuple[int, ...]]:
    return {each.sizes for each in slices_of(chips)}


@pytest.mark.parametrize(
    ("cubes", "count"), [(1, 1), (2, 1), (4, 2), (8, 3), (16, 4), (32, 5), (64, 7)]
)
def test_so_many_cubes_make_so_many_shapes(cubes, count):
    assert len(shapes_of(64 * cubes)) == count


def test_the_slices_of_512_chips():
    assert list(map(str, slices_of(512))) == ["4x4x32", "4x8x16", "8x8x8"]


@pytest.mark.parametrize("cubes", [1, 3, 6, 12, 27, 36, 48, 63, 64, 100])
def test_shapes_are_all_triples_whose_product_is_the_number_of_cubes(cubes):
    every = itertools.product(range(1, cubes + 1), repeat=2)
    want = {
        tuple(sorted((4 * x, 4 * y, 4 * (cubes // (x * y)))))
        for x, y in every
        if cubes % (x * y) == 0
    }
    assert shapes_of(64 * cubes) == want


def test_all_slices_of_a_machine_are_legal_and_rise():
    every = all_slices()
    assert len(set(every)) == len(every)
    assert [each.chips for each in every] == sorted(each.chips for each in every)
    assert every[0] == Slice((1, 1, 1))
    assert max(each.chips for each in every) == 4096
    twisted = [str(each) for each in every if each.twisted]
    assert twisted == ["4x4x8_T", "4x8x8_T", "8x8x16_T", "8x16x16_T", "12x12x24_T"]


def test_fewer_chips_have_fewer_slices():
    assert list(map(str, all_slices(8))) == ["1x1x1", "1x1x2", "1x2x2", "2x2x2"]


def test_names_are_read_back():
    for each in all_slices():
        assert parse_slice(str(each)) == each
        assert each.chips == math.prod(each.sizes)
        assert not each.cubes or 64 * math.prod(each.cube_sizes) == each.chips


def test_names_tell_whether_a_slice_is_twisted():
    assert parse_slice("4x4x8_T") == Slice((4, 4, 8), twisted=True)
    assert parse_slice("4x4x8_NT") == parse_slice("4x4x8") == Slice((4, 4, 8))


def test_a_slice_has_the_links_of_its_kind():
    assert parse_slice("2x4x4").topology == mesh((2, 4, 4))
    assert parse_slice("4x4x12").topology == torus((4, 4, 12))
    assert parse_slice("4x8x8").topology == torus((4, 8, 8))
    assert parse_slice("4x8x8_T").topology == twisted_torus((4, 8, 8))


@pytest.mark.parametrize(
    ("name", "twistable"),
    [("4x4x8", True), ("8x16x16", True), ("4x8x16", False), ("2x2x4", False), ("4x4x4", False)],
)
def test_which_slices_may_be_twisted(name, twistable):
    assert parse_slice(name).twistable == twistable


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("4x4", r"named like 4x4x8, or 4x4x8_T .* got '4x4'"),
        ("4x4x8_X", r"named like .* got '4x4x8_X'"),
        ("", r"named like .* got ''"),
        ("4x4x-8", r"named like .* got '4x4x-8'"),
        ("0x4x4", r"1 chip or more along each axis, got 0x4x4"),
        ("8x4x4", r"rising sizes: 4x4x8 instead of 8x4x4"),
        ("4x4x6", r"no slice 4x4x6: .* near it are 4x4x4, 4x4x8\."),
        ("4x6x10", r"near it are 4x4x8, 4x4x12, 4x8x8, 4x8x12\."),
        ("1x1x3", r"near it are 1x1x2\."),
        ("1x2x4", r"near it are 2x2x4\."),
        ("3x4x4", r"near it are 2x4x4, 4x4x4\."),
        ("4x4x4_T", r"4x4x4 cannot be twisted: only n x n x 2n .* Near it are 4x4x8_T\."),
        ("4x8x16_T", r"Near it are 4x8x8_T, 8x8x16_T\."),
        ("2x2x4_T", r"2x2x4 cannot be twisted"),
        ("16x16x16_T", r"Near it are 12x12x24_T, 12x24x24_T\."),
    ],
)
def test_names_of_no_slice_are_refused_with_those_near(name, message):
    with pytest.raises(ValueError, match=message):
        parse_slice(name)


@pytest.mark.parametrize(
    ("chips", "message"),
    [
        (0, r"No slice has 0 chips; next to it are 1\."),
        (-5, r"No slice has -5 chips; next to it are 1\."),
        (3, r"next to it are 2 and 4\."),
        (48, r"next to it are 32 and 64\."),
        (100, r"next to it are 64 and 128\."),
        (4000, r"next to it are 3968 and 4032\."),
    ],
)
def test_numbers_of_chips_of_no_slice_are_refused(chips, message):
    with pytest.raises(ValueError, match=message):
        slices_of(chips)


def test_slices_smaller_than_a_cube_have_no_cubes():
    with pytest.raises(ValueError, match="2x2x4 is smaller than a cube"):
        _ = parse_slice("2x2x4").cube_sizes
    with pytest.raises(ValueError, match="1 chip or more, got at most 0"):
        all_slices(0)
