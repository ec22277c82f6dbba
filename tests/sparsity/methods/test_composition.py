"""Methods inside what JAX and optax do with functions: loops, maps, chains, precisions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Cubic, Linear, Periodic, Unstructured
from gossamer.sparsity.methods import (
    SET,
    SRSTE,
    STE,
    Frozen,
    GradualMagnitude,
    MdGf,
    RandomPruning,
    RigL,
    SdGf,
    StaticRandom,
)
from gossamer.training import quantize_aware
from gossamer.weights import dot
from tests.sparsity.methods.problem import batch, kernels, loss, parameters, recipe, stepper, train

CLIMB = Cubic(start=1, stop=7, every=2)
SOME = {  # one of every way in which masks come about
    "SRSTE": lambda **given: SRSTE(recipe=recipe(), **given),
    "MdGf": lambda **given: MdGf(recipe=recipe(), start=1, stop=6, **given),
    "GradualMagnitude": lambda **given: GradualMagnitude(
        recipe=recipe(Unstructured(0.5)), schedule=CLIMB, **given
    ),
    "RigL": lambda **given: RigL(recipe=recipe(Unstructured(0.5)), schedule=CLIMB, **given),
}


# The quick suite has one method with dense weights and one that zeroes them, `test-all` the rest.
EACH = [
    pytest.param(name, marks=[] if name in ("SRSTE", "GradualMagnitude") else pytest.mark.slow)
    for name in SOME
]


def momentum():
    """An optimizer under which a difference in the last bit stays one; Adam divides by it."""
    return optax.sgd(0.05, momentum=0.9)


def assert_same(method, got, want):
    """The same masks in every place, and weights but for how float32 is summed."""
    for path, mask in method.masks(*want).items():
        np.testing.assert_array_equal(method.masks(*got)[path], mask)
    for mine, other in zip(jax.tree.leaves(got[0]), jax.tree.leaves(want[0]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EACH)
def test_scan_gives_the_bits_of_a_loop(name):
    method = SOME[name]()
    optimizer = method.wrap(momentum())
    step, start = stepper(method, optimizer), parameters()
    got, _ = jax.lax.scan(
        lambda carry, _: (step(*carry), None), (start, optimizer.init(start)), None, length=8
    )
    want = train(method, optimizer, 8)
    for mine, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(mine, other)


def primitives(jaxpr):
    """The names of all operations, those of inner functions too."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                names |= primitives(inner)
    return names


@pytest.mark.parametrize("name", ["GradualMagnitude", "RigL"])
def test_a_population_whose_masks_the_host_changes_trains_as_each_member_alone(name):
    method = SOME[name](drive="host")
    optimizer = method.wrap(momentum())
    members = [
        jax.tree.map(lambda leaf, scale=scale: leaf * scale, parameters()) for scale in (1.0, 1.5)
    ]

    def step(params, state):
        weights = method.weights(params, state)
        grads = jax.grad(loss)(weights, *batch())
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    def refresh(params, state):
        grads = jax.grad(loss)(method.weights(params, state), *batch())
        return params, optimizer.refresh(grads, state, params)

    def run(step, refresh, params, state):
        for number in range(8):
            if method.schedule.due(number):
                params, state = refresh(params, state)
                if name == "RigL":
                    continue  # there the refresh is a step
            params, state = step(params, state)
        return params, state

    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    states = jax.vmap(optimizer.init)(together)
    found = primitives(jax.make_jaxpr(jax.vmap(step))(together, states).jaxpr)
    assert not found & {"cond", "while", "sort"}
    got = run(jax.jit(jax.vmap(step)), jax.jit(jax.vmap(refresh)), together, states)
    for place, member in enumerate(members):
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], got)
        alone = run(jax.jit(step), jax.jit(refresh), member, optimizer.init(member))
        assert_same(method, mine, alone)


@pytest.mark.parametrize("name", EACH)
def test_shard_map_over_the_batch_trains_as_one_device_does(name):
    method = SOME[name]()
    optimizer = method.wrap(momentum())
    mesh = Mesh(np.asarray(jax.devices()[:8]), ("data",))
    everywhere, rows = PartitionSpec(), PartitionSpec("data")

    def step(params, state, x, y):
        weights = method.weights(params, state)
        # The loss's mean over devices: its gradient is the mean of theirs.
        mean = lambda weights: jax.lax.pmean(loss(weights, x, y), "data")  # noqa: E731
        grads = jax.grad(mean)(weights)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(everywhere, everywhere, rows, rows),
            out_specs=(everywhere, everywhere),
        )
    )
    params = parameters()
    state = optimizer.init(params)
    for _ in range(8):
        params, state = mapped(params, state, *batch())
    assert_same(method, (params, state), train(method, optimizer, 8))


@pytest.mark.parametrize(
    "method",
    [
        SdGf(recipe=recipe(NM(1, 4)), stop=6),
        GradualMagnitude(recipe=recipe(NM(1, 8)), schedule=Linear(start=0, stop=7)),
        STE(recipe=recipe(NM(1, 8)), schedule=Linear(start=0, stop=7)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_an_n_that_changes_never_compiles_again(method):
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    state, inner, kept, traces = optimizer.init(params), stepper(method, optimizer), set(), []

    @jax.jit
    def step(params, state):
        traces.append(None)  # JAX's own count of programs falls when other tests need the room
        return inner(params, state)

    for _ in range(9):
        params, state = step(params, state)
        kept.add(int(method.masks(params, state)["first.kernel"][:8, 0].sum()))
    assert len(kept) > 2
    assert len(traces) == 1


@pytest.mark.parametrize("name", EACH)
def test_bfloat16_weights_and_gradients_stay_bfloat16_and_as_sparse_as_asked(name):
    method = SOME[name]()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), parameters())
    params, state = train(method, method.wrap(optax.adamw(1e-2)), 8, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    for kernel in kernels(method.weights(params, state)).values():
        assert (kernel == 0).mean() == 0.5
        assert np.isfinite(kernel.astype(np.float32)).all()


def test_float32_weights_take_bfloat16_gradients():
    method = SRSTE(recipe=recipe())
    optimizer, params = method.wrap(optax.sgd(0.1)), parameters()
    state = optimizer.init(params)
    weights = method.weights(params, state)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights)
    grads = jax.grad(loss)(halves, *batch())
    updates, _ = optimizer.update(grads, state, params, weights=weights)
    after = optax.apply_updates(params, updates)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_at_a_pruned_place_is_never_seen(bad):
    method = StaticRandom(recipe=recipe())
    optimizer, params = method.wrap(optax.adamw(1e-2)), parameters()
    pruned = ~np.asarray(method.masks(params, optimizer.init(params))["first.kernel"])
    broken = {
        **params,
        "first": {**params["first"], "kernel": jnp.where(pruned, bad, params["first"]["kernel"])},
    }
    (_, clean_state), (_, state) = (train(method, optimizer, 4, each) for each in (params, broken))
    want = kernels(method.weights(*train(method, optimizer, 4, params)))
    got = kernels(method.weights(*train(method, optimizer, 4, broken)))
    for name, kernel in want.items():
        np.testing.assert_array_equal(got[name], kernel)
    for mine, clean in zip(
        jax.tree.leaves(state.inner), jax.tree.leaves(clean_state.inner), strict=True
    ):
        np.testing.assert_array_equal(mine, clean)


@pytest.mark.parametrize(
    "method",
    [Frozen(recipe=recipe()), SdGf(recipe=recipe(), stop=2), RigL(recipe=recipe(), schedule=CLIMB)],
    ids=lambda method: type(method).__name__,
)
def test_a_gradient_that_is_no_number_at_a_pruned_place_stays_out_of_moments(method):
    params = parameters()
    params["first"]["kernel"] = params["first"]["kernel"].at[::2].set(0)
    optimizer = method.wrap(optax.adam(1e-2))
    state = optimizer.init(params)
    weights = method.weights(params, state)
    keep = method.masks(params, state)
    grads = jax.tree.map(jnp.ones_like, params)
    for layer in ("first", "second"):
        grads[layer]["kernel"] = jnp.where(keep[f"{layer}.kernel"], 1.0, jnp.nan)
    _, state = optimizer.update(grads, state, params, weights=weights)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.inner))


@pytest.mark.parametrize("kind", [StaticRandom, RandomPruning, SET])
def test_what_is_drawn_for_a_weight_does_not_depend_on_its_neighbours(kind):
    given = {} if kind is StaticRandom else {"schedule": Periodic(start=0, stop=9)}
    method = kind(recipe=recipe(path=r"(second|extra)\.kernel"), **given)
    masks = []
    for extra in ({}, {"extra": {"kernel": jnp.ones((8, 4)), "bias": jnp.zeros(4)}}):
        params = {**parameters(), **extra}
        params, state = train(method, method.wrap(optax.sgd(0.1)), 1, params)
        masks.append(method.masks(params, state)["second.kernel"])
    np.testing.assert_array_equal(*masks)


def test_two_weights_of_one_shape_are_drawn_apart():
    params = {"a": {"kernel": jnp.ones((32, 8))}, "b": {"kernel": jnp.ones((32, 8))}}
    masks = StaticRandom(recipe=recipe()).first_masks(params)
    assert (masks["a.kernel"] != masks["b.kernel"]).any()


def test_multi_steps_around_a_method_steps_once_for_all_parts_of_a_batch():
    method = SRSTE(recipe=recipe())
    once = method.wrap(optax.sgd(0.1))
    parts = optax.MultiSteps(method.wrap(optax.sgd(0.1)), every_k_schedule=2)
    want = train(method, once, 3)
    params = parameters()
    state = parts.init(params)
    for number in range(6):
        x, y = (part[number % 2 :: 2] for part in batch())
        weights = method.weights(params, state)
        grads = jax.grad(loss)(weights, x, y)
        updates, state = parts.update(grads, state, params, weights=weights)
        params = optax.apply_updates(params, updates)
    assert_same(method, (params, state), want)


def test_clipping_before_a_method_leaves_its_own_term_alone_and_inside_it_clips_that_too():
    method = SRSTE(recipe=recipe(), decay=100.0)
    params = parameters()
    norms = {}
    for name, optimizer in {
        "before": optax.chain(optax.clip_by_global_norm(1.0), method.wrap(optax.sgd(1.0))),
        "inside": method.wrap(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))),
    }.items():
        state = optimizer.init(params)
        weights = method.weights(params, state)
        grads = jax.grad(loss)(weights, *batch())
        updates, _ = optimizer.update(grads, state, params, weights=weights)
        norms[name] = float(optax.tree.norm(updates))
    np.testing.assert_allclose(norms["inside"], 1.0, rtol=1e-5)
    assert norms["before"] > 50


def test_extra_arguments_reach_the_inner_optimizer():
    seen = {}

    def update(updates, state, params=None, **extra):
        del params
        seen.update(extra)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    method = STE(recipe=recipe())
    optimizer, params = method.wrap(inner), parameters()
    state = optimizer.init(params)
    weights = method.weights(params, state)
    optimizer.update(weights, state, params, weights=weights, value=3.0, anything="else")
    assert seen == {"value": 3.0, "anything": "else"}


def test_injected_hyperparameters_are_found_inside_a_method_and_can_be_changed():
    method = Frozen(recipe=recipe())
    optimizer = method.wrap(optax.inject_hyperparams(optax.sgd)(learning_rate=0.0))
    params, state = train(method, optimizer, 2)
    for name, kernel in kernels(parameters()).items():
        np.testing.assert_array_equal(kernels(params)[name], kernel)
    state.inner.hyperparams["learning_rate"] = jnp.float32(0.1)
    moved, _ = train(method, optimizer, 1, params, state)
    assert (kernels(moved)["first"] != kernels(params)["first"]).any()


def forward(weights, x):
    """The problem's model, whose kernels may be wrapped."""
    hidden = jnp.tanh(dot(x, weights["first"]["kernel"]) + weights["first"]["bias"])
    return dot(hidden, weights["second"]["kernel"]) + weights["second"]["bias"]


@pytest.mark.parametrize("order", ["prune, then round", "round, then prune"])
def test_training_in_few_bits_learns_and_stays_sparse_in_either_order(order):
    formats = Recipe(rules=(Rule(path=r".*kernel", weights=Int(4)),))
    method, params = SRSTE(recipe=recipe()), parameters()
    optimizer = method.wrap(optax.adam(1e-2))
    state = optimizer.init(params)

    def rounded(tree):
        return {
            name: {**layer, "kernel": Int(4).quantize(layer["kernel"])}
            for name, layer in tree.items()
        }

    def objective(weights):
        x, y = batch()
        if order == "prune, then round":
            weights = quantize_aware(weights, formats, multiply="fake")
        return jnp.mean((forward(weights, x) - y) ** 2)

    @jax.jit
    def step(params, state):
        # Gradients are taken at what the masks leave, so rounding before them is straight through.
        weights = method.weights(params if order.startswith("prune") else rounded(params), state)
        value, grads = jax.value_and_grad(objective)(weights)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state, value, weights

    losses = []
    for _ in range(30):
        params, state, value, weights = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]
    for kernel in kernels(weights).values():
        groups = (kernel != 0).reshape(-1, 4, kernel.shape[1])
        assert (groups.sum(axis=1) <= 2).all()
        if order.startswith("round"):
            assert all(len(np.unique(column)) <= 16 for column in kernel.T)


INT4 = Rule(path=r".*kernel", weights=Int(4))


def materialized(weights):
    return {name: np.asarray(layer["kernel"].materialize()) for name, layer in weights.items()}


def test_pruned_first_a_method_trains_at_the_rounded_values_of_what_its_masks_leave():
    method, params = SRSTE(recipe=recipe()), parameters()
    weights = method.weights(params, method.init(params))
    seen = materialized(quantize_aware(weights, Recipe(rules=(INT4,)), multiply="fake"))
    for name, kernel in seen.items():
        want = Int(4).encode(weights[name]["kernel"]).decode()
        np.testing.assert_array_equal(kernel, want)
        assert (kernel[kernels(weights)[name] == 0] == 0).all()


def test_rounded_first_a_method_trains_at_what_its_masks_leave_of_the_rounded_values():
    method, params = SRSTE(recipe=recipe()), parameters()
    masks = method.masks(params, method.init(params))
    both = Recipe(rules=(dataclasses.replace(INT4, pattern=NM(2, 4)),))
    with pytest.warns(UserWarning, match="quantized before they are pruned"):
        wrapped = quantize_aware(
            params, both, multiply="fake", masks=masks, order="quantize-then-prune"
        )
    for name, kernel in materialized(wrapped).items():
        rounded = Int(4).encode(params[name]["kernel"]).decode()  # by the scales of all weights
        np.testing.assert_array_equal(kernel, np.where(masks[f"{name}.kernel"], rounded, 0))
