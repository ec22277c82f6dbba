"""What is refused, or warned of, before the first step."""

import jax.numpy as jnp
import optax
import pytest

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Block, Linear, Periodic, Unstructured
from gossamer.sparsity.methods import (
    SRSTE,
    STE,
    STEP,
    GlobalMagnitude,
    MaskDecay,
    MdGf,
    OneShot,
    RigL,
    SdGf,
    StructureDecay,
)
from tests.sparsity.methods.problem import parameters, recipe

HALF = recipe(Unstructured(0.5))


def init(method, params=None):
    return method.wrap(optax.sgd(0.1)).init(parameters() if params is None else params)


def test_all_weights_that_cannot_have_their_pattern_are_named_together():
    params = {
        "rows": jnp.ones((6, 4)),
        "blocks": jnp.ones((8, 3)),
        "vector": jnp.ones(4),
        "counts": jnp.ones((4, 4), jnp.int32),
        "fits": jnp.ones((8, 4)),
    }
    rules = (
        Rule(path="blocks", pattern=Block(0.5, (4, 2))),
        Rule(path="rows|vector|counts|fits", pattern=NM(2, 4)),
    )
    with pytest.raises(ValueError, match="SRSTE cannot prune: ") as error:
        init(SRSTE(recipe=Recipe(rules=rules)), params)
    for fault in (
        "rows: 2:4 needs the length of axis -2 to be a multiple of 4, got 6 in shape (6, 4)",
        "blocks: 50% in blocks of 4x2 needs axis -2 to be a multiple of 4 and the other of 2",
        "vector (4,) has no axis -2; narrow 'rows|vector|counts|fits'",
        "counts is int32, not floats; narrow 'rows|vector|counts|fits'",
    ):
        assert fault in str(error.value)
    assert "fits" not in str(error.value).replace("vector|counts|fits", "")


def test_a_recipe_that_prunes_nothing_is_refused():
    nothing = Recipe(rules=(Rule(path=".*kernel"),))
    with pytest.raises(ValueError, match=r"No rule of STE's recipe has a pattern: there is noth"):
        init(STE(recipe=nothing))


EMBEDDED = {"embedding": {"kernel": jnp.ones((8, 4))}, "output": {"kernel": jnp.ones((4, 8))}}


def test_an_embedding_that_a_wide_rule_selects_is_warned_of_by_name():
    with pytest.warns(
        UserWarning, match=r"The rule '\.\*kernel' selects embedding\.kernel, which looks like an"
    ):
        init(OneShot(recipe=recipe()), EMBEDDED)


@pytest.mark.parametrize("path", [r"embedding\.kernel", r"output\.kernel"])
def test_an_embedding_that_is_named_or_left_alone_is_not_warned_of(path):
    init(OneShot(recipe=recipe(path=path)), EMBEDDED)  # a warning would be an error


UNFIT = {
    "a threshold for all and a ratio of groups": (
        lambda: init(GlobalMagnitude(recipe=recipe(), schedule=Periodic())),
        r"GlobalMagnitude has one threshold .*; first\.kernel has .*",
    ),
    "a threshold for all and a distribution": (
        lambda: init(GlobalMagnitude(recipe=HALF, schedule=Periodic(), distribution="erdos-renyi")),
        r"finds the distribution by itself; 'erdos-renyi' would be ignored",
    ),
    "frames of what has no groups": (
        lambda: init(SdGf(recipe=HALF, stop=4)),
        r"SdGf tightens N:M patterns, and first\.kernel has",
    ),
    "stairs of what has no groups": (
        lambda: init(StructureDecay(recipe=HALF)),
        r"StructureDecay tightens N:M patterns, and first\.kernel has",
    ),
    "a climb without an end": (
        lambda: RigL(recipe=HALF, schedule=Periodic()),
        r"RigL drops less and less until its schedule stops: set `stop`",
    ),
    "more than all is dropped": (
        lambda: RigL(recipe=HALF, schedule=Linear(stop=4), drop_fraction=1.5),
        r"RigL needs 0 <= drop_fraction <= 1, got drop_fraction=1\.5",
    ),
    "a decay that ends as it starts": (
        lambda: MdGf(recipe=HALF, start=4, stop=4),
        r"MdGf decays from start to stop, got start=4, stop=4",
    ),
    "a rate of nothing": (lambda: MdGf(recipe=HALF, stop=4, rate=0.0), r"rate > 0, got rate=0\.0"),
    "frames that end before they start": (
        lambda: SdGf(recipe=recipe(), start=4, stop=3),
        r"SdGf tightens from start to stop, got start=4, stop=3",
    ),
    "frames that cannot be halved": (
        lambda: SdGf(recipe=recipe(), stop=3, largest=6),
        r"SdGf needs a power of two, got largest=6",
    ),
    "a factor below 0": (
        lambda: MaskDecay(recipe=HALF, weight=1.5),
        r"MaskDecay needs 0 <= weight <= 1, got weight=1\.5",
    ),
    "weights that grow": (lambda: SRSTE(recipe=HALF, decay=-1.0), r"decay >= 0, got decay=-1\.0"),
    "a switch before it may be": (
        lambda: STEP(recipe=HALF, earliest=5, latest=4),
        r"STEP switches between earliest and latest, got earliest=5, latest=4",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
