"""When masks change and how sparse they are by then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.sparsity import (
    NM,
    Cubic,
    Exponential,
    Linear,
    Periodic,
    Staircase,
    Unstructured,
    once,
)

RAMPS = (Cubic, Linear, Exponential, Staircase)


@st.composite
def ramps(draw):
    kind = draw(st.sampled_from(RAMPS))
    start, length = draw(st.integers(0, 9)), draw(st.integers(0, 20))
    given = {"start": start, "stop": start + length}
    if kind is Staircase:
        return kind(**given, stairs=draw(st.integers(2, 7)))
    return kind(**given, every=draw(st.integers(1, 25)))


@given(ramps(), st.floats(0.05, 0.99))
def test_the_last_update_of_every_ramp_is_at_stop_and_at_the_whole_target(schedule, final):
    due = [step for step in range(schedule.stop + 50) if schedule.due(step)]
    assert due[-1] == schedule.stop
    assert float(schedule.progress(schedule.stop, final)) == 1.0
    pattern = Unstructured(final)
    assert int(pattern.kept(97, schedule.progress(schedule.stop, final))) == pattern.kept(97)


@given(ramps(), st.floats(0.05, 0.99))
def test_no_ramp_ever_gets_denser_or_passes_its_target(schedule, final):
    asked = np.asarray([schedule.sparsity(step, final) for step in range(schedule.stop + 5)])
    assert (np.diff(asked) >= -1e-6).all()
    assert asked.min() >= 0
    assert asked.max() <= final + 1e-6


@pytest.mark.parametrize(("start", "stop", "every"), [(0, 100, 30), (5, 95, 50), (3, 7, 100)])
def test_a_window_that_its_period_does_not_divide_still_ends_at_the_target(start, stop, every):
    # JaxPruner ends such windows at 0.899 and 0.795 of 0.9, and never prunes in the third.
    schedule = Cubic(start=start, stop=stop, every=every)
    due = [step for step in range(200) if schedule.due(step)]
    assert due[0] == start
    assert due[-1] == stop
    np.testing.assert_allclose(schedule.sparsity(stop, 0.9), 0.9, rtol=1e-6)


def test_cubic_is_the_papers_and_one_step_behind_jaxpruners():
    schedule = Cubic(start=0, stop=20)
    np.testing.assert_allclose(schedule.sparsity(10, 0.5), 0.4375, rtol=1e-6)  # its step 9
    np.testing.assert_allclose(schedule.sparsity(0, 0.5), 0.0, atol=1e-7)


@pytest.mark.parametrize("kind", RAMPS)
def test_a_traced_step_gives_what_the_host_gets(kind):
    schedule = kind(start=3, stop=17)
    sparsity = jax.jit(lambda step: schedule.sparsity(step, 0.8))
    due = jax.jit(lambda step: jnp.asarray(schedule.due(step)))
    for step in range(25):
        np.testing.assert_allclose(sparsity(step), schedule.sparsity(step, 0.8), rtol=1e-6)
        assert bool(due(step)) == bool(schedule.due(step))


def test_once_is_due_at_its_step_alone():
    assert [step for step in range(20) if once(7).due(step)] == [7]


def test_periodic_without_an_end_goes_on():
    assert [step for step in range(100, 120) if Periodic(start=2, every=5).due(step)] == [
        102,
        107,
        112,
        117,
    ]


def test_an_nm_target_tightens_one_element_at_a_time():
    schedule, scores = Linear(start=0, stop=4), jnp.arange(8.0)
    kept = [int(NM(4, 8).mask(scores, 0, schedule.progress(step, 0.5)).sum()) for step in range(6)]
    assert kept == [8, 7, 6, 5, 4, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cubic(start=10, stop=5), r"would end before it starts: start=10, stop=5"),
        (lambda: Cubic(start=0), r"climbs to its target at `stop`, which is missing"),
        (lambda: Periodic(start=-1), r"start of 0 or later"),
        (lambda: Periodic(every=0), r"every >= 1"),
        (lambda: Staircase(stop=4, stairs=1), r"a single one there is once\(step\)"),
        (lambda: Linear(stop=4, initial=1.0), r"0 <= initial < 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
