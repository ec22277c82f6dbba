import io

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning.availability import (
    Machine,
    confident_goodput,
    confident_slices,
    goodput_plot,
    simulate_slices,
    spare_cubes_needed,
    static_goodput,
    switched_goodput,
)

HOSTS = (0.99, 0.995, 0.999)
# Slice chips: any cubes joined, as promised with 97 %, fixed parts; each for the three HOSTS.
TABLE = {
    64: ((0.851, 0.923, 0.984), (0.766, 0.859, 0.953), (0.851, 0.923, 0.984)),
    128: ((0.844, 0.915, 0.977), (0.750, 0.844, 0.938), (0.725, 0.852, 0.968)),
    256: ((0.828, 0.900, 0.960), (0.750, 0.812, 0.938), (0.526, 0.726, 0.938)),
    512: ((0.796, 0.869, 0.920), (0.750, 0.750, 0.875), (0.276, 0.526, 0.880)),
    1024: ((0.747, 0.751, 0.840), (0.750, 0.750, 0.750), (0.076, 0.277, 0.774)),
    2048: ((0.500, 0.503, 0.679), (0.500, 0.500, 0.500), (0.006, 0.077, 0.599)),
    3072: ((0.742, 0.750, 0.750), (0.750, 0.750, 0.750), (0.000, 0.016, 0.348)),
    4096: ((0.000, 0.006, 0.359), (0.000, 0.000, 0.000), (0.000, 0.006, 0.359)),
}
SMALL = Machine(chips=48, cube_chips=8, host_chips=4)  # 6 cubes of 2 hosts: 4096 states


def states(machine: Machine, available: float) -> tuple[np.ndarray, np.ndarray]:
    """Which cubes work in each state of the hosts, and how probable each state is."""
    hosts = machine.cubes * machine.cube_hosts
    up = (np.arange(2**hosts)[:, None] >> np.arange(hosts)) & 1
    chances = np.where(up, available, 1 - available).prod(axis=1)
    return up.reshape(-1, machine.cubes, machine.cube_hosts).all(axis=-1), chances


@pytest.mark.parametrize("chips", TABLE)
def test_goodput_of_a_tpu_v4_to_three_digits(chips):
    for found, wanted in zip(
        (switched_goodput, confident_goodput, static_goodput), TABLE[chips], strict=True
    ):
        got = [found(chips, host) for host in HOSTS]
        np.testing.assert_allclose(got, wanted, atol=0.0005 + 1e-12)  # its rounding


@pytest.mark.parametrize("host", [0.99, 0.995])
@pytest.mark.parametrize(("chips", "stated"), [(1024, 0.75), (2048, 0.50), (3072, 0.75)])
def test_goodput_that_the_paper_states(chips, stated, host):
    assert switched_goodput(chips, host) == pytest.approx(stated, abs=0.01)


def test_fixed_parts_need_hosts_that_nearly_always_work():
    assert all(static_goodput(chips, 0.999) > 0.75 for chips in TABLE if chips <= 1024)
    assert static_goodput(2048, 0.999) < 0.75
    assert static_goodput(1024, 0.99) < 0.1


@pytest.mark.parametrize(
    ("cubes", "spares"), [(1, 0), (1, 2), (2, 0), (2, 1), (3, 0), (3, 2), (4, 1), (6, 0)]
)
def test_goodput_is_that_of_all_states_of_the_hosts(cubes, spares):
    works, chances = states(SMALL, 0.9)
    running = np.minimum(works.sum(axis=1) // cubes, (SMALL.cubes - spares) // cubes)
    wanted = chances @ running * cubes / SMALL.cubes
    got = switched_goodput(8 * cubes, 0.9, SMALL, spare_cubes=spares)
    assert got == pytest.approx(wanted, rel=1e-12)
    parts = [works[:, i : i + cubes].all(axis=1) for i in range(0, 7 - cubes, cubes)]
    fixed = sum(chances @ part for part in parts) * cubes / SMALL.cubes
    assert static_goodput(8 * cubes, 0.9, SMALL) == pytest.approx(fixed, rel=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.97, 0.999])
def test_slices_are_promised_with_the_probability_of_all_states(confidence):
    works, chances = states(SMALL, 0.9)
    for cubes in (1, 2, 3):
        enough = [m for m in range(7) if chances[works.sum(axis=1) >= m * cubes].sum() > confidence]
        assert confident_slices(8 * cubes, 0.9, SMALL, confidence=confidence) == max(enough)


@pytest.mark.parametrize(("chips", "switched"), [(64, True), (1024, True), (512, False)])
def test_simulation_agrees_with_the_closed_form_within_its_standard_error(chips, switched):
    found = simulate_slices(chips, 0.99, switched=switched, trials=4000, seed=3)
    wanted = (switched_goodput if switched else static_goodput)(chips, 0.99)
    # Four standard errors: one seed in 16,000 misses; a wrong model misses by tens.
    assert abs(found.goodput - wanted) < 4 * found.standard_error
    assert found.standard_error < 0.01


def test_simulation_promises_as_many_slices_as_the_closed_form():
    found = simulate_slices(512, 0.99, trials=4000, seed=1)
    count = confident_slices(512, 0.99)
    assert found.share_with(count) >= 0.97 > found.share_with(count + 1)


def test_simulation_repeats_with_its_seed_and_not_with_another():
    same = [simulate_slices(64, 0.99, trials=50, seed=seed).running for seed in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert (same[0] != same[2]).any()


@given(
    host=st.floats(0.9, 1.0),
    cubes=st.integers(1, 64),
    worse=st.floats(0.0, 0.09),
)
def test_switches_never_lose_goodput_and_better_hosts_never_do(host, cubes, worse):
    assert switched_goodput(64 * cubes, host) >= static_goodput(64 * cubes, host) - 1e-12
    assert switched_goodput(64 * cubes, host) >= switched_goodput(64 * cubes, host - worse) - 1e-12


def test_hosts_that_never_fail_leave_only_what_does_not_divide():
    assert (
        switched_goodput(3072, 1.0)
        == static_goodput(3072, 1.0)
        == confident_goodput(3072, 1.0)
        == 0.75
    )
    assert switched_goodput(64, 0.0) == static_goodput(64, 0.0) == 0.0


def test_spares_take_goodput_that_was_there_and_give_what_can_be_promised():
    needed = spare_cubes_needed(1024, 3, 0.99)
    assert 48 + needed <= 64
    assert confident_slices(1024, 0.99, Machine(chips=64 * (48 + needed))) == 3
    assert confident_slices(1024, 0.99, Machine(chips=64 * (47 + needed))) == 2
    assert spare_cubes_needed(1024, 3, 1.0) == 0
    assert spare_cubes_needed(1024, 3, 0.999) < needed
    with_spares = switched_goodput(64, 0.99, spare_cubes=16)
    assert with_spares == pytest.approx(0.75, abs=0.01)  # 48 nearly always run
    assert with_spares < switched_goodput(64, 0.99)


def test_goodput_of_machines_beyond_a_thousand_cubes():
    large = Machine(chips=64 * 4000)
    assert switched_goodput(64, 0.99, large) == pytest.approx(0.99**16, rel=1e-9)


def test_plot_shows_a_curve_for_each_availability():
    def pixels(plot: bytes) -> list[int]:
        image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round()
        return [int((image == color).all(-1).sum()) for color in ((31, 119, 180), (255, 127, 14))]

    blue, orange = pixels(goodput_plot([0.99], SMALL))
    assert blue > 100
    assert orange == 0
    assert pixels(goodput_plot([0.99, 0.999], SMALL))[1] > 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: switched_goodput(100, 0.99), "cubes of 64 chips, got 100 chips; 128 would do"),
        (lambda: switched_goodput(0, 0.99), "got 0 chips; 64 would do"),
        (lambda: switched_goodput(8192, 0.99), "8192 chips needs 4096 more than the 4096"),
        (lambda: switched_goodput(64, 1.5), "host_availability needs 0 to 1, got 1.5"),
        (lambda: switched_goodput(64, float("nan")), "host_availability needs 0 to 1, got nan"),
        (lambda: switched_goodput(2048, 0.99, spare_cubes=33), "spare_cubes needs 0 to 32.*got 33"),
        (lambda: confident_slices(64, 0.99, confidence=2.0), "confidence needs 0 to 1, got 2"),
        (lambda: static_goodput(65, 0.99), "65 chips; 64 would do"),
        (lambda: spare_cubes_needed(64, 0, 0.99), "slices needs to be 1 or more, got 0"),
        (lambda: spare_cubes_needed(64, 1, 0.99, confidence=1.0), "below 1, got 1"),
        (lambda: spare_cubes_needed(64, 1, 0.1), "take more than 10000 cubes"),
        (lambda: simulate_slices(64, 0.99, trials=1), "2 trials or more, got 1"),
        (lambda: Machine(chips=100), "chips to be a multiple of cube_chips, got 100 and 64"),
        (lambda: Machine(host_chips=0), "multiple of host_chips, got 64 and 0"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
