import math

import pytest

from gossamer.planning import POPULARITY, parse_slice, twist_shares


def test_the_mix_has_the_shares_that_the_paper_names():
    got = twist_shares()
    # Jouppi et al. 2023, section 2, in whole percent.
    assert got.twisted == pytest.approx(0.28, abs=0.005)
    assert got.twistable == pytest.approx(0.33, abs=0.005)
    assert got.used == pytest.approx(0.86, abs=0.005)
    assert got.of_cubes == pytest.approx(0.40, abs=0.005)
    assert got.twisted == pytest.approx(0.284)
    assert got.twistable == pytest.approx(0.331)


def test_the_mix_fills_the_sizes_that_the_table_adds_up():
    sums: dict[str, float] = {}
    bounds = {"<64": 63, "64": 64, "192": 192, "384": 384, "768": 768, "1536": 1536, "3072": 3072}
    for name, percent in POPULARITY.items():
        chips = parse_slice(name).chips
        bucket = next(label for label, most in bounds.items() if chips <= most)
        sums[bucket] = sums.get(bucket, 0.0) + percent
    assert {bucket: round(total) for bucket, total in sums.items()} == {
        "<64": 29,
        "64": 14,
        "192": 18,
        "384": 12,
        "768": 13,
        "1536": 4,
        "3072": 8,
    }


def test_only_slices_that_could_be_twisted_say_that_they_are_not():
    for name in POPULARITY:
        assert parse_slice(name).twistable == name.endswith(("_T", "_NT"))


def test_two_names_of_one_slice_count_together():
    got = twist_shares({"4x4x8": 10.0, "4x4x8_NT": 20.0, "4x4x8_T": 30.0})
    assert (got.twisted, got.twistable) == pytest.approx((0.3, 0.6))
    assert got.used == pytest.approx(0.5)


def test_a_mix_without_twists_has_no_shares():
    got = twist_shares({"1x1x1": 100.0})
    assert (got.twisted, got.twistable, got.used, got.of_cubes) == (0, 0, 0, 0)


def test_a_mix_of_no_percentages_is_refused():
    with pytest.raises(ValueError, match="0 or more and 100 together"):
        twist_shares({"4x4x4": 101.0})
    with pytest.raises(ValueError, match="0 or more and 100 together"):
        twist_shares({"4x4x4": -1.0})
    with pytest.raises(ValueError, match="no slice 4x4x5"):
        twist_shares({"4x4x5": 1.0})
    assert math.fsum(POPULARITY.values()) < 100
