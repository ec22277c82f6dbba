"""Checkpoints know whose they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Linear
from gossamer.sparsity.methods import SRSTE, GradualMagnitude
from gossamer.training import Checkpoints
from tests.training.runs import FEED_FORWARD, RECIPE, run

STATE = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def of_pattern(pattern, path=FEED_FORWARD):
    return Recipe(rules=(Rule(path=path, pattern=pattern),))


@pytest.fixture
def folder(tmp_path):
    """Of a run under SR-STE with 2:4, after three steps."""
    written = Checkpoints(tmp_path, run(method=SRSTE(recipe=RECIPE)))
    written.save(3, jax.tree.map(jnp.asarray, STATE), {"position": 12})
    written.close()
    return tmp_path


def restored(folder, **changes):
    reader = Checkpoints(folder, run(**changes))
    try:
        like = {"weight": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
        return reader.restore(reader.latest(), like)
    finally:
        reader.close()


OTHERS = {
    "another ratio": (
        {"method": SRSTE(recipe=of_pattern(NM(1, 4)))},
        r"checkpoint of step 3 in .* belongs to another run, with method\.recipe",
    ),
    "another part of the model": (
        {
            "method": SRSTE(
                recipe=Recipe(rules=(Rule(path=r".*up_proj\.kernel", pattern=NM(2, 4)),))
            )
        },
        r"another run, with method\.recipe.*up_proj",
    ),
    "another method": (
        {"method": GradualMagnitude(recipe=RECIPE, schedule=Linear(stop=4))},
        r"method\.type: 'SRSTE', not 'GradualMagnitude'",
    ),
    "masks in bits": (
        {"method": SRSTE(recipe=RECIPE, packed=True)},
        r"method\.packed: False, not True",
    ),
    "no method": ({}, r"method: \{.*\}, not None"),
}


@pytest.mark.parametrize(("changes", "message"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_recipe_is_refused_and_the_difference_named(
    folder, changes, message
):
    with pytest.raises(ValueError, match=message):
        restored(folder, **changes)


def test_what_changes_no_weight_may_be_another_when_a_run_goes_on(folder):
    state, position = restored(folder, method=SRSTE(recipe=RECIPE), log_every=2, on_nan="skip")
    np.testing.assert_array_equal(state["weight"], STATE["weight"])
    assert position == {"position": 12}
