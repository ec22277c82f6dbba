import dataclasses

import pytest

from gossamer.planning.chips import find_chip
from gossamer.planning.energy import find_site
from gossamer.planning.training_run import Attention, plan_training, token_flops

TPU = find_chip("tpu-v4")
PALM = Attention(layers=118, width=48 * 256, sequence=2048)
SMALL = {
    "parameters": 1e9,
    "tokens": 20e9,
    "chip": TPU,
    "chips": 64,
    "mfu": 0.4,
    "site": find_site("world"),
}


@pytest.mark.parametrize(
    ("parameters", "attention", "teraflops"),
    [
        (8.63e9, Attention(layers=32, width=16 * 256, sequence=2048), 0.0550),
        (62.50e9, Attention(layers=64, width=32 * 256, sequence=2048), 0.388),
        (540.35e9, PALM, 3.28),
    ],
)
def test_flops_of_a_token_are_those_of_palms_table_22(parameters, attention, teraflops):
    assert token_flops(parameters, attention) / 1e12 == pytest.approx(teraflops, rel=2e-3)


def test_flops_of_a_token_are_their_sum():
    assert token_flops(10.0, Attention(layers=2, width=3, sequence=5)) == 6 * 10 + 12 * 2 * 3 * 5
    assert token_flops(10.0) == 60


def run_of_palm(**changes):
    return plan_training(
        **{
            "parameters": 540.35e9,
            "attention": PALM,
            "tokens": 780e9,
            "chip": TPU,
            "chips": 6144,
            "mfu": 0.4623,
            "site": find_site("palm"),
            "watts": 378.5,
        }
        | changes
    )


def test_palms_tokens_a_second_and_flops_are_the_published_ones():
    run = run_of_palm()
    assert run.tokens_per_second == pytest.approx(238.3e3, rel=1e-3)
    assert run.flops == pytest.approx(2.56e24, rel=2e-3)


def test_palms_chip_hours_and_co2e_follow_from_the_mean_utilization_of_its_booked_hours():
    # 8.40 million booked chip-hours at 30.8 % of the peak on average; 271.43 tCO2e.
    run = run_of_palm(mfu=0.4623, goodput=0.308 / 0.4623)
    assert run.chip_hours == pytest.approx(6144 * 1200 + 3072 * 336, rel=5e-3)
    assert run.footprint.grams / 1e6 == pytest.approx(271.43, rel=5e-3)


def test_goodput_stretches_hours_and_energy_and_not_the_rate():
    whole, half = (plan_training(**SMALL, goodput=share) for share in (1.0, 0.5))
    assert half.tokens_per_second == whole.tokens_per_second
    assert half.computing_hours == whole.computing_hours == whole.hours
    assert half.hours == 2 * whole.hours
    assert half.footprint.joules == 2 * whole.footprint.joules


def test_chips_shorten_a_run_and_leave_its_chip_hours():
    few, many = (plan_training(**SMALL | {"chips": chips}) for chips in (64, 256))
    assert many.hours == few.hours / 4
    assert many.chip_hours == pytest.approx(few.chip_hours)


def test_a_run_agrees_with_its_arithmetic():
    run = plan_training(**SMALL, goodput=0.95)
    seconds = 6 * 1e9 * 20e9 / (64 * 275e12 * 0.4)
    assert run.computing_hours == pytest.approx(seconds / 3600)
    assert run.chip_hours == pytest.approx(64 * seconds / 0.95 / 3600)
    kwh = run.chip_hours * 170 / 1000 * 1.57
    assert run.footprint.kwh == pytest.approx(kwh)
    assert run.footprint.grams == pytest.approx(475 * kwh)
    assert run.token_footprint.joules == pytest.approx(3.6e6 * kwh / 20e9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": 0.0}, "parameters needs to be positive, got 0"),
        ({"tokens": -1.0}, "tokens needs to be positive, got -1"),
        ({"chips": 0}, "chips needs to be positive, got 0"),
        ({"mfu": 40.0}, "mfu needs to be above 0 and at most 1, got 40"),
        ({"goodput": 0.0}, "goodput needs to be above 0 and at most 1, got 0"),
        (
            {"chip": dataclasses.replace(TPU, watts=None, sources={})},
            "No watts of the chip 'tpu-v4' are known; give its mean power",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_training(**SMALL | changes)


def test_attention_without_size_is_refused():
    with pytest.raises(ValueError, match="width of attention needs to be positive, got 0"):
        Attention(layers=1, width=0, sequence=1)
