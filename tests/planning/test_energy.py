import pytest

from gossamer.planning.energy import (
    SITES,
    Site,
    find_site,
    footprint,
    performance_per_watt,
    relative_impact,
)

HERE = Site(pue=1.25, grams_per_kwh=100.0, offset=0.3)


def test_relative_energy_and_co2e_are_those_of_the_four_ms():
    found = relative_impact(SITES["google-oklahoma"], SITES["world"], machine=2.0)
    assert found.energy == pytest.approx(2.8545, abs=1e-4)
    assert found.co2e == pytest.approx(18.323, abs=1e-3)


def test_relative_impact_is_the_quotient_of_two_footprints():
    # The same work: half the speed a watt elsewhere, three times the operations.
    other = Site(pue=1.6, grams_per_kwh=420.0)
    found = relative_impact(HERE, other, machine=2.0, model=3.0)
    ours, theirs = (footprint(100.0, watts=w, site=s) for w, s in ((50.0, HERE), (300.0, other)))
    assert found.energy == pytest.approx(theirs.joules / ours.joules, rel=1e-12)
    assert found.co2e == pytest.approx(theirs.grams / ours.grams, rel=1e-12)


def test_performance_per_watt_of_tpu_v4_over_v3():
    assert performance_per_watt(2.1, watts=170.0, other_watts=220.0) == pytest.approx(
        2.72, abs=0.005
    )


def test_footprint_of_a_pod_for_1200_hours():
    chip_seconds = 4096 * 1200 * 3600.0
    clean, world = (
        footprint(chip_seconds, watts=170.0, site=Site(pue=1.10, grams_per_kwh=grams))
        for grams in (74.0, 475.0)
    )
    assert round(clean.kwh) == round(world.kwh) == 919_142
    assert round(clean.grams / 1e6, 1) == 68.0
    assert round(world.grams / 1e6, 1) == 436.6


def test_footprint_of_palm_is_the_published_one():
    # 6144 chips for 1200 hours and 3072 for 336: 271.43 tCO2e, Chowdhery et al. 2022.
    chip_hours = 6144 * 1200 + 3072 * 336
    found = footprint(chip_hours * 3600.0, watts=378.5, site=find_site("palm"))
    assert round(found.grams / 1e6, 2) == 271.43


def test_offsets_are_taken_from_net_grams_alone():
    found = footprint(3600.0, watts=1000.0, site=HERE)
    assert found.joules == 1.25 * 3.6e6
    assert found.kwh == 1.25
    assert found.grams == pytest.approx(125.0)
    assert found.net_grams == pytest.approx(87.5)


def test_parts_of_a_footprint_sum_up_to_it():
    whole = footprint(1e6, watts=170.0, site=HERE)
    part = whole.per(1e9)
    assert part.joules * 1e9 == pytest.approx(whole.joules)
    assert part.grams * 1e9 == pytest.approx(whole.grams)
    assert part.net_grams * 1e9 == pytest.approx(whole.net_grams)
    assert part.joules == pytest.approx(footprint(1e-3, watts=170.0, site=HERE).joules)


@pytest.mark.parametrize("name", SITES)
def test_every_site_has_a_source(name):
    assert "arXiv" in SITES[name].source


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Site(pue=0.9, grams_per_kwh=1.0), "pue needs 1 or more.*got 0.9"),
        (lambda: Site(pue=1.1, grams_per_kwh=-1.0), "grams_per_kwh needs to be 0 or more, got -1"),
        (lambda: Site(pue=1.1, grams_per_kwh=1.0, offset=30.0), "share from 0 to 1, got 30"),
        (lambda: find_site("moon"), "no site 'moon'; known are google-oklahoma, palm, world"),
        (lambda: footprint(-1.0, watts=1.0, site=HERE), "chip_seconds needs to be 0 or more"),
        (lambda: footprint(1.0, watts=0.0, site=HERE), "watts needs to be positive, got 0"),
        (lambda: footprint(1.0, watts=1.0, site=HERE).per(0.0), "more than 0, got 0"),
        (
            lambda: performance_per_watt(0.0, watts=1.0, other_watts=1.0),
            "speedup needs to be positive",
        ),
        (lambda: relative_impact(HERE, HERE, machine=0.0), "machine needs to be positive, got 0"),
        (
            lambda: relative_impact(Site(pue=1.1, grams_per_kwh=0.0), HERE),
            "multiple of the CO2e of a site that has none",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
