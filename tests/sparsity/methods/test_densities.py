"""What a method says of its density, where its period does not divide its window."""

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.sparsity import NM, Cubic, Exponential, Linear, Periodic, Staircase, Unstructured
from gossamer.sparsity import density as kept
from gossamer.sparsity.methods import SRSTE, STEP, SdGf
from tests.sparsity.methods.problem import recipe

SCHEDULES = [
    Periodic(),
    Periodic(start=3, every=4),
    Periodic(start=3, stop=3),
    Cubic(start=2, stop=9, every=3),
    Linear(start=0, stop=8, every=5),
    Exponential(start=1, stop=1),
    Staircase(start=2, stop=12, stairs=4),
    Staircase(start=3, stop=9, stairs=2),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_last_update_is_the_latest_that_was_due(schedule):
    due = [step for step in range(30) if bool(schedule.due(step))]
    want = [max((each for each in due if each <= step), default=-1) for step in range(30)]
    assert [int(schedule.last(step)) for step in range(30)] == want
    held = [float(schedule.held(step, 0.75)) for step in range(30)]
    progress = [float(schedule.progress(each, 0.75)) if each >= 0 else 0.0 for each in want]
    np.testing.assert_allclose(held, progress, rtol=1e-6)


def test_the_last_frame_begins_at_stop_whether_the_period_divides_it_or_not():
    method = SdGf(recipe=recipe(), stop=8, every=3)
    params = {"kernel": jnp.arange(1.0, 17.0)[:, None]}
    assert [step for step in range(12) if bool(method.due(step))] == [0, 3, 6, 8, 9]
    mask = method.new_mask("kernel", params["kernel"], NM(2, 4), jnp.asarray(8))
    assert (np.asarray(mask).reshape(-1, 4).sum(1) == 2).all()
    assert [float(method.density(NM(2, 4), step)) for step in (0, 7, 8)] == [0.75, 0.75, 0.5]


def test_a_share_of_a_pattern_is_rounded_as_its_masks_are():
    scores = jnp.arange(1.0, 17.0)[:, None]
    for progress in np.linspace(0, 1, 21, dtype=np.float32):
        traced = jnp.asarray(progress)
        for pattern in (NM(1, 4), NM(3, 8), NM(1, 16)):
            mask = pattern.mask(scores, 0, traced)
            assert float(kept(pattern, traced)) == float(mask.mean()), (pattern, progress)
        assert kept(Unstructured(0.5), 0.5) == 0.75


def test_a_switch_that_came_earlier_is_told():
    method = STEP(recipe=recipe(), earliest=4, latest=9)
    dense = lambda method: [step for step in range(15) if method.density(NM(2, 4), step) == 1]  # noqa: E731
    assert dense(method) == list(range(10))
    assert dense(method.switched(3)) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"SRSTE does not find by itself .* step 3: STEP does"):
        SRSTE(recipe=recipe()).switched(3)
