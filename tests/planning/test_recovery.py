import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning.recovery import (
    best_interval,
    checkpoint_goodput,
    daly_interval,
    replica_goodput,
    simulate_recovery,
    slice_failure_seconds,
    young_interval,
)

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(
    ("failure", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)]
)
def test_interval_is_that_of_dalys_figures(failure, minutes):
    # Checkpoints of 5 minutes; the captions of figures 3 to 5 print these digits.
    found = daly_interval(checkpoint_seconds=5 * MINUTE, failure_seconds=failure) / MINUTE
    assert float(f"{found:.2g}" if minutes < 100 else f"{found:.3g}") == minutes
    exact = best_interval(checkpoint_seconds=5 * MINUTE, failure_seconds=failure) / MINUTE
    assert exact == pytest.approx(found, rel=0.01)  # an approximation of higher order


@given(checkpoint=st.floats(1e-6, 3.0))
def test_no_interval_is_better_than_the_best(checkpoint):
    best = best_interval(checkpoint_seconds=checkpoint, failure_seconds=1.0)
    at = {"failure_seconds": 1.0, "restart_seconds": 0.1, "checkpoint_seconds": checkpoint}
    most = checkpoint_goodput(**at)
    assert most == checkpoint_goodput(**at, interval_seconds=best)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert checkpoint_goodput(**at, interval_seconds=factor * best) < most


def test_approximations_meet_the_best_where_failures_are_rare():
    for checkpoint, young, daly in ((1e-2, 0.08, 1e-4), (1e-6, 1e-3, 1e-9)):
        sizes = {"checkpoint_seconds": checkpoint, "failure_seconds": 1.0}
        best = best_interval(**sizes)
        assert young_interval(**sizes) == pytest.approx(best, rel=young)
        assert daly_interval(**sizes) == pytest.approx(best, rel=daly)


def test_lost_time_is_the_first_order_sum_where_failures_are_rare():
    # A share s / T for checkpoints, and r + T / 2 for every failure.
    got = checkpoint_goodput(
        failure_seconds=1e6, restart_seconds=300.0, checkpoint_seconds=10.0, interval_seconds=3e3
    )
    assert 1 - got == pytest.approx(10 / 3000 + (300 + 1500) / 1e6, rel=0.02)


def test_replicas_reach_a_goodput_of_97_where_checkpoints_give_85():
    # Gemini's report gives both goodputs and no times. With a failure every 3 hours, restarts of 8
    # minutes from storage, of 5 from replicas, and checkpoints of 1 minute, the first-order sum
    # loses 15.0 % with checkpoints; the exact one repeats less: the time that is lost at a failure
    # is a little less than half of an interval.
    checkpoints = checkpoint_goodput(
        failure_seconds=3 * HOUR, restart_seconds=8 * MINUTE, checkpoint_seconds=MINUTE
    )
    replicas = replica_goodput(
        failure_seconds=3 * HOUR, restart_seconds=5 * MINUTE, step_seconds=5.0
    )
    assert checkpoints == pytest.approx(0.85, abs=0.01)
    assert replicas == pytest.approx(0.97, abs=0.005)


@pytest.mark.parametrize(
    ("restart", "checkpoint", "interval"), [(0.05, 0.02, 0.2), (0.5, 0.0, 0.01), (1.0, 0.3, 1.5)]
)
def test_simulation_agrees_with_the_closed_form_within_its_standard_error(
    restart, checkpoint, interval
):
    sizes = {
        "failure_seconds": 1.0,
        "restart_seconds": restart,
        "checkpoint_seconds": checkpoint,
        "interval_seconds": interval,
    }
    share, error = simulate_recovery(**sizes, intervals=100_000, seed=7)
    assert abs(share - checkpoint_goodput(**sizes)) < 4 * error
    assert error < 0.02 * share  # small enough to tell one model from another
    assert (share, error) == simulate_recovery(**sizes, intervals=100_000, seed=7)


def test_simulation_agrees_with_a_clock_that_runs_through_failures():
    # One clock, one list of failures, no intervals drawn apart from each other.
    generator = np.random.default_rng(5)
    clock, done, failure = 0.0, 0, generator.exponential(1.0)
    restarting = False
    while done < 20_000:
        end = clock + (0.1 if restarting else 0.35)
        if failure < end:
            clock, restarting = failure, True
            failure += generator.exponential(1.0)
        else:
            done += not restarting
            clock, restarting = end, False
    share, error = simulate_recovery(
        failure_seconds=1.0, restart_seconds=0.1, checkpoint_seconds=0.05, interval_seconds=0.3
    )
    # Its own error is sqrt(5) that of five times as many intervals.
    assert abs(done * 0.3 / clock - share) < 4 * error * np.sqrt(1 + 5)


def test_a_slice_fails_as_often_as_all_its_hosts():
    assert slice_failure_seconds(1e6, 256) == 1e6 / 256


def test_goodput_is_nothing_where_no_interval_ever_passes():
    got = checkpoint_goodput(
        failure_seconds=1.0, restart_seconds=0.0, checkpoint_seconds=0.0, interval_seconds=1e6
    )
    assert got == 0.0


GOOD = {"failure_seconds": 1.0, "restart_seconds": 1.0, "checkpoint_seconds": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slice_failure_seconds(0.0, 1), "host_failure_seconds needs to be positive, got 0"),
        (lambda: slice_failure_seconds(1.0, 0), "hosts needs to be positive, got 0"),
        (
            lambda: best_interval(checkpoint_seconds=0.0, failure_seconds=1.0),
            "checkpoint_seconds needs to be positive, got 0",
        ),
        (
            lambda: checkpoint_goodput(**GOOD | {"restart_seconds": -1.0}),
            "restart_seconds needs to be 0 or more, got -1",
        ),
        (lambda: checkpoint_goodput(**GOOD, interval_seconds=0.0), "interval_seconds needs to be"),
        (
            lambda: replica_goodput(failure_seconds=1.0, restart_seconds=1.0, step_seconds=0.0),
            "step_seconds needs to be positive, got 0",
        ),
        (lambda: simulate_recovery(**GOOD, interval_seconds=1.0, intervals=1), "2 intervals"),
        (
            lambda: simulate_recovery(**GOOD, interval_seconds=50.0),
            "51 s without a failure are too",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
