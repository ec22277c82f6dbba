import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.evaluation import perplexity
from gossamer.parameters import leaves_by_path
from gossamer.recipe import Recipe
from gossamer.sparsity.methods import SET, SRSTE, STE, STEP, MaskDecay, MdGf, OneShot, RigL, SdGf
from gossamer.sparsity.schedules import Periodic
from gossamer.training import (
    AdamW,
    Batches,
    MeshConfig,
    QuantizationConfig,
    Step,
    as_checkpoint,
    make_mesh,
    put_batch,
    train,
)
from gossamer.training.loop import TIMES, warn_of_an_early_end
from tests.training.runs import RECIPE, UP, corpus, run


def equal(left, right) -> bool:
    """Whether two trees hold the same bits."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def lines(folder) -> list[dict]:
    """The metrics of a run, without the times."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


class KilledError(Exception):
    pass


def killed_after(steps):
    """Progress that ends the process, as it were, after so many steps."""
    done = [0]

    def advance():
        done[0] += 1
        if done[0] == steps:
            raise KilledError

    return lambda name, total: advance


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    config = run(method=SRSTE(recipe=RECIPE))
    whole = train(config, folder=tmp_path / "whole", corpus=corpus())
    with pytest.raises(KilledError):
        train(config, folder=tmp_path / "killed", corpus=corpus(), progress=killed_after(4))
    resumed = train(config, folder=tmp_path / "killed", corpus=corpus(), resume=True)
    assert equal(whole.state, resumed.state)
    assert whole.evaluation == resumed.evaluation
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")
    assert list((tmp_path / "killed" / "events").iterdir())
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]

    other = dataclasses.replace(config, method=SRSTE(recipe=RECIPE, decay=1e-3), steps=7)
    with pytest.raises(ValueError, match=r"step 6 .* steps: 6, not 7; method.decay: 0.0002, not 0"):
        train(other, folder=tmp_path / "killed", corpus=corpus(), resume=True)
    with pytest.raises(ValueError, match="holds a run of 6 steps: resume it"):
        train(config, folder=tmp_path / "killed", corpus=corpus())


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "bits"])
def test_a_run_killed_between_two_changes_of_masks_resumes_with_the_same_bits(tmp_path, packed):
    schedule = Periodic(start=1, every=2, stop=5)
    config = run(method=RigL(recipe=RECIPE, schedule=schedule, packed=packed))
    whole = train(config, corpus=corpus())
    with pytest.raises(KilledError):
        train(config, folder=tmp_path, corpus=corpus(), progress=killed_after(5))
    resumed = train(config, folder=tmp_path, corpus=corpus(), resume=True)
    assert equal(whole.state, resumed.state)
    assert [row["flips"] > 0 for row in whole.history] == [False, True] * 2 + [False, False]


def test_a_trained_model_is_one_of_ours_and_has_the_loss_that_was_measured():
    trained = train(run(method=MdGf(recipe=RECIPE, stop=4), evaluation_windows=8), corpus=corpus())
    groups = np.asarray(trained.weights[UP]).reshape(-1, 4, trained.weights[UP].shape[1])
    assert (np.count_nonzero(groups, axis=1) <= 2).all()
    checkpoint = as_checkpoint(run(), trained.weights, corpus())
    windows = corpus().windows(16, 8)
    # Another program with its own order of sums: float32's rounding, on a loss of a few nats.
    losses = perplexity(checkpoint, windows).losses
    assert np.mean(losses) == pytest.approx(trained.evaluation, rel=1e-5)


@pytest.mark.parametrize("kind", [SET, RigL], ids=lambda kind: kind.__name__)
def test_methods_that_rest_the_optimizer_compose_with_the_loop(kind):
    method = kind(recipe=RECIPE, schedule=Periodic(start=1, every=2, stop=3))
    trained = train(run(method=method, steps=4), corpus=corpus())
    assert np.isfinite(trained.evaluation)
    assert float((trained.weights[UP] != 0).mean()) <= 0.5


def step_on(config):
    """A compiled step, its state, and a batch."""
    step = Step(config, make_mesh(config.mesh))
    return step, step.init(), put_batch(step.mesh, corpus().windows(16, 4))


def test_metrics_tell_what_masks_do_and_which_gradients_pass():
    method = MdGf(recipe=RECIPE, start=1, stop=3)
    history = train(run(method=method), corpus=corpus()).history
    assert [row["sparsity"] for row in history] == [0.5] * 6
    assert all(0 < row["gradient_variance"] < 1 for row in history)
    strict = train(run(method=MaskDecay(recipe=RECIPE, weight=0.0)), corpus=corpus()).history
    through = train(run(method=STE(recipe=RECIPE)), corpus=corpus()).history
    # The first steps see the same weights; then one lets the gradients of pruned weights through.
    assert strict[0]["loss"] == through[0]["loss"]
    assert strict[0]["gradient_variance"] != through[0]["gradient_variance"]
    assert "flips" not in train(run(), corpus=corpus()).history[0]


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    whole, state, batch = step_on(run(optimizer=AdamW(clip=None)))
    parts, _, _ = step_on(run(optimizer=AdamW(clip=None), accumulate=2))
    loss, grads = jax.jit(whole._gradients)(state.params, batch, jax.random.key(0))
    other_loss, other = jax.jit(parts._gradients)(state.params, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, other_loss, rtol=1e-6)
    for path, grad in grads.items():
        np.testing.assert_allclose(other[path], grad, atol=1e-6, err_msg=path)


def test_bfloat16_computes_close_by_and_keeps_float32():
    exact, state, batch = step_on(run())
    rough, _, _ = step_on(run(precision="bfloat16"))
    wanted, got = (each.losses(state, batch).sums / 16 for each in (exact, rough))
    assert not np.array_equal(wanted, got)
    # bfloat16 has 8 bits: relative errors of 2^-9 in logits of a fresh model, which are below 1.
    np.testing.assert_allclose(got, wanted, atol=0.02)
    state, _ = rough(state, batch)
    assert {leaf.dtype for leaf in state.params.values()} == {np.dtype(np.float32)}


def test_a_quantized_run_computes_what_the_rounded_weights_give():
    recipe = Recipe.load("int8")
    aware, state, batch = step_on(run(quantization=QuantizationConfig(recipe=recipe)))
    plain, _, _ = step_on(run())
    rounded = {
        path: recipe.match(state.params)[path].weights.encode(weight).decode()
        if path in recipe.match(state.params)
        else weight
        for path, weight in state.params.items()
    }
    wanted = plain.losses(state._replace(params=rounded), batch)
    np.testing.assert_allclose(aware.losses(state, batch).sums, wanted.sums, rtol=1e-5)


def test_a_step_without_finite_gradients_changes_nothing_and_is_counted():
    config = run(method=SRSTE(recipe=RECIPE), on_nan="skip", steps=3)
    weights = leaves_by_path(Step(config, make_mesh(config.mesh)).init().params)
    broken = {path: np.array(weight) for path, weight in weights.items()}
    broken["norm.scale"][0] = np.nan
    step, _, batch = step_on(config)
    state = step.init(broken)
    before = jax.tree.map(np.array, state)
    after, metrics = step(state, batch)
    assert (int(after.step), int(after.skipped), bool(metrics["finite"])) == (1, 1, False)
    assert equal(before._replace(step=after.step, skipped=after.skipped), after)

    stopping = dataclasses.replace(config, on_nan="stop")
    with pytest.raises(ValueError, match=r"gradients of step 1 are not finite .*learning rate"):
        train(stopping, corpus=corpus(), params=broken)


def test_weights_to_begin_with_must_be_the_models():
    step, state, _ = step_on(run())
    with pytest.raises(ValueError, match=r"not those of the model: \['norm.scale'\] differ"):
        step.init({path: leaf for path, leaf in state.params.items() if path != "norm.scale"})


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="A batch of 4 does not divide among 8 devices"):
        train(run(mesh=MeshConfig()), corpus=corpus())
    with pytest.raises(ValueError, match="data=5 and fsdp=2 needs 10 devices, and there are 8"):
        make_mesh(MeshConfig(data=5, fsdp=2))


@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=2), MeshConfig(data=1, fsdp=2), MeshConfig(data=2, fsdp=2)], ids=str
)
def test_sharded_runs_have_the_losses_of_one_device(mesh):
    config = run(method=SRSTE(recipe=RECIPE, packed=True), steps=3)
    alone = train(config, corpus=corpus())
    shared = train(dataclasses.replace(config, mesh=mesh), corpus=corpus())
    if mesh.fsdp > 1:
        assert shared.params[UP].addressable_shards[0].data.shape == (32, 64 // mesh.fsdp)
    # Sums of float32 in another order, through three steps of Adam.
    wanted = [row["loss"] for row in alone.history]
    np.testing.assert_allclose([row["loss"] for row in shared.history], wanted, rtol=1e-4)
    assert shared.evaluation == pytest.approx(alone.evaluation, rel=1e-4)


def test_weights_keep_their_bits_whatever_devices_draw_them():
    config = run()
    alone = Step(config, make_mesh(config.mesh)).init()
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    shared = Step(dataclasses.replace(config, batch=8), mesh).init()
    assert equal(alone, shared)
    assert jnp.asarray(shared.params[UP]).sharding.mesh.size == 8


EARLY = {
    "MdGf": (MdGf(recipe=RECIPE, stop=9), 9),
    "MdGf, linear": (MdGf(recipe=RECIPE, stop=99, decay="linear", rate=0.125), 8),
    "SdGf, as dense on its way": (SdGf(recipe=RECIPE, stop=9, frames="geometric", largest=2), 9),
    "MaskDecay": (MaskDecay(recipe=RECIPE, every=4, weight=0.5), 8),
    "STEP, at the latest": (STEP(recipe=RECIPE, earliest=1, latest=7), 8),
    # What is pruned at step 8 is missing in the forward pass of the next.
    "OneShot": (OneShot(recipe=RECIPE, at=8), 9),
}


@pytest.mark.parametrize(("method", "first"), EARLY.values(), ids=EARLY)
def test_a_run_that_ends_before_its_method_warns_and_says_what_would_do(method, first):
    message = (
        rf"ends after {first - 1} steps, and {type(method).__name__} may not have layers\.0\.mlp\."
        rf"\w+\.kernel at 2:4 before step {first}: .* Train for {first} steps or more"
    )
    with pytest.warns(UserWarning, match=message):
        warn_of_an_early_end(run(method=method, steps=first - 1))
    warn_of_an_early_end(run(method=method, steps=first))  # a warning would be an error


def test_the_warning_comes_before_anything_is_done():
    config = run(method=MdGf(recipe=RECIPE, stop=9), mesh=MeshConfig())
    with (
        pytest.warns(UserWarning, match="MdGf may not have .* before step 9"),
        pytest.raises(ValueError, match="A batch of 4 does not divide among 8 devices"),
    ):
        train(config, corpus=corpus())


def test_a_run_goes_on_past_the_batches_that_break_it_and_counts_them():
    """The embedding of one byte is not a number: batches with it change nothing."""
    text = corpus()
    learned = np.where(np.arange(text.learned.size) == 500, ord("~"), text.learned)
    text = dataclasses.replace(text, learned=learned)
    config = run(method=SRSTE(recipe=RECIPE), on_nan="skip", steps=18)
    weights = Step(config, make_mesh(config.mesh)).init().params
    broken = {path: np.array(weight) for path, weight in weights.items()}
    broken["embedding.kernel"][:, ord("~")] = np.nan
    trained = train(config, corpus=text, params=broken)
    batches = Batches(text.examples(config), batch=config.batch, seed=config.seed)
    met = [bool((next(batches)[:, :-1] == ord("~")).any()) for _ in range(config.steps)]
    assert 0 < sum(met) < len(met)
    assert trained.skipped == sum(met)
    assert [row["skipped"] for row in trained.history] == [float(each) for each in met]
    assert int(config.method.find(trained.state.optimizer).step) == len(met) - sum(met)
    assert np.isfinite(trained.weights[UP]).all()
