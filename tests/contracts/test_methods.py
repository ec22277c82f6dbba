"""What every sparse-training method must do. A new method joins by one line in `METHODS`."""

import dataclasses
from typing import NamedTuple

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity import NM, Block, Channel, Cubic, Unstructured
from gossamer.sparsity.methods import (
    ASP,
    SET,
    SRSTE,
    STE,
    STEP,
    Frozen,
    GlobalMagnitude,
    GlobalSaliency,
    GradualMagnitude,
    MaskDecay,
    MdGf,
    OneShot,
    RandomPruning,
    RigL,
    Saliency,
    SdGf,
    StaticRandom,
    StructureDecay,
)
from tests.sparsity.methods.problem import batch, kernels, loss, parameters, recipe, train

PATTERNS = {
    "NM": NM(2, 4),
    "Unstructured": Unstructured(0.75),
    "Block": Block(0.5, (4, 2)),
    "Channel": Channel(0.5),
}
CLIMB = Cubic(start=2, stop=9, every=3)
METHODS = {  # a method that has come to its target after ten steps
    "OneShot": lambda **given: OneShot(at=3, **given),
    "GradualMagnitude": lambda **given: GradualMagnitude(schedule=CLIMB, **given),
    "GlobalMagnitude": lambda **given: GlobalMagnitude(schedule=CLIMB, **given),
    "GlobalSaliency": lambda **given: GlobalSaliency(schedule=CLIMB, **given),
    "RandomPruning": lambda **given: RandomPruning(schedule=CLIMB, **given),
    "Saliency": lambda **given: Saliency(schedule=CLIMB, **given),
    "ASP": lambda **given: ASP(at=3, **given),
    "Frozen": lambda **given: Frozen(**given),
    "StaticRandom": lambda **given: StaticRandom(**given),
    "SET": lambda **given: SET(schedule=CLIMB, **given),
    "RigL": lambda **given: RigL(schedule=CLIMB, **given),
    "STE": lambda **given: STE(**given),
    "STE_random_climbing": lambda **given: STE(score="random", schedule=CLIMB, **given),
    "SRSTE": lambda **given: SRSTE(**given),
    "MdGf": lambda **given: MdGf(start=2, stop=8, **given),
    "MdGf_open_linear": lambda **given: MdGf(stop=8, decay="linear", gradient="open", **given),
    "SdGf": lambda **given: SdGf(stop=8, **given),
    "SdGf_geometric": lambda **given: SdGf(start=1, stop=8, frames="geometric", largest=2, **given),
    "MaskDecay": lambda **given: MaskDecay(every=2, weight=0.5, **given),
    "StructureDecay": lambda **given: StructureDecay(every=2, **given),
    "STEP": lambda **given: STEP(earliest=2, latest=5, **given),
}
ONLY = {  # what some methods are for
    "GlobalMagnitude": ["Unstructured"],
    "GlobalSaliency": ["Unstructured"],
    "SdGf": ["NM"],
    "SdGf_geometric": ["NM"],
    "StructureDecay": ["NM"],
}
IN_FULL = ("GradualMagnitude", "RigL", "SRSTE")
# Every method and every pattern are met; every pair of them in `make test-all`.
PAIRS = [
    pytest.param(
        name,
        pattern,
        marks=[] if name in IN_FULL or pattern == ONLY.get(name, ["NM"])[0] else pytest.mark.slow,
    )
    for name in METHODS
    for pattern in ONLY.get(name, PATTERNS)
]
ONE_OF_EACH = [(name, ONLY.get(name, ["NM"])[0]) for name in METHODS]
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.05, momentum=0.9),
    "adamw": lambda: optax.adamw(1e-2),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "lion": lambda: optax.lion(1e-3),
    "rmsprop": lambda: optax.rmsprop(1e-3, momentum=0.9),
    "muon": lambda: optax.contrib.muon(1e-3),
    "multi_transform": lambda: optax.multi_transform(
        {"yes": optax.adam(1e-2), "no": optax.sgd(1e-2)},
        {"first": {"kernel": "yes", "bias": "no"}, "second": {"kernel": "no", "bias": "no"}},
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "multi_steps_inside": lambda: optax.MultiSteps(
        optax.adam(1e-2), every_k_schedule=2
    ).gradient_transformation(),
    "masked": lambda: optax.masked(
        optax.adam(1e-2), {"first": True, "second": {"kernel": False, "bias": True}}
    ),
    "plateau": lambda: optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
}


def optimizer_for(method, name="adamw"):
    if isinstance(method, STEP):
        return method.wrap(optax.chain(method.scale_by_adam(), optax.scale(-1e-2)))
    return method.wrap(OPTIMIZERS[name]())


def one_step(method, optimizer, gradient=loss):
    """A step without compiling it, for `eval_shape`."""

    def step(params, state):
        weights = method.weights(params, state)
        value, grads = jax.value_and_grad(gradient)(weights, *batch())
        updates, state = optimizer.update(grads, state, params, weights=weights, value=value)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize(("name", "pattern"), PAIRS)
def test_ends_as_sparse_as_asked_and_the_same_in_bits_as_in_bytes(name, pattern):
    results = []
    for packed in (False, True):
        method = METHODS[name](recipe=recipe(PATTERNS[pattern]), packed=packed)
        params = parameters()
        if name == "Frozen":
            mask = lambda kernel: PATTERNS[pattern].mask(jnp.abs(kernel), 0) * kernel  # noqa: E731
            params = {k: {**v, "kernel": mask(v["kernel"])} for k, v in params.items()}
        params, state = train(method, optimizer_for(method), 10, params)
        results.append(
            (params, kernels(method.weights(params, state)), method.masks(params, state))
        )
    (plain, weights, masks), (packed_params, packed_weights, packed_masks) = results
    for path, mask in masks.items():
        layer = path.split(".")[0]
        np.testing.assert_array_equal(mask, packed_masks[path])
        np.testing.assert_array_equal(weights[layer], packed_weights[layer])
        assert (weights[layer][~np.asarray(mask)] == 0).all()
        if not name.startswith("Global"):
            assert 1 - mask.mean() == pytest.approx(PATTERNS[pattern].sparsity)
        if pattern == "NM":
            groups = np.asarray(mask).reshape(-1, 4, mask.shape[1])
            assert (groups.sum(axis=1) == 2).all()
    total = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
    assert 1 - total == pytest.approx(PATTERNS[pattern].sparsity)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), plain, packed_params))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "bits"])
def test_works_with_any_optax_optimizer_and_keeps_the_structure_of_its_state(
    name, pattern, optimizer, packed
):
    if name == "STEP":
        pytest.skip("STEP brings its own Adam")
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]), packed=packed)
    wrapped = optax.chain(optax.clip_by_global_norm(1.0), optimizer_for(method, optimizer))
    params = parameters()
    state = wrapped.init(params)
    after = jax.eval_shape(one_step(method, wrapped), params, state)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shapes(after) == shapes((params, jax.eval_shape(lambda: state)))


FLOATS = {  # dtypes of weights and gradients; optax's Adam itself widens moments below gradients
    "float32": (jnp.float32, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
    "mixed": (jnp.float32, jnp.bfloat16),
}


@pytest.mark.parametrize("floats", FLOATS)
@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_a_step_gives_the_types_that_it_takes_so_nothing_compiles_twice(name, pattern, floats):
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    optimizer, (stored, given) = optimizer_for(method), FLOATS[floats]
    params = jax.tree.map(lambda leaf: leaf.astype(stored), parameters())

    def step(params, state):
        weights = method.weights(params, state)
        grads = jax.tree.map(lambda leaf: leaf.astype(given), jax.grad(loss)(weights, *batch()))
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    before = params, jax.eval_shape(optimizer.init, params)
    types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert types(jax.eval_shape(step, *before)) == types(before)


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array | None


class Equinox(equinox.Module):
    kernel: jax.Array
    name: str = equinox.field(static=True, default="layer")


def nnx_state():
    return nnx.state(nnx.Linear(16, 8, rngs=nnx.Rngs(0)), nnx.Param)


def linen_params():
    return linen.Dense(8).init(jax.random.key(0), jnp.ones((1, 16)))


TREES = {
    "bare": lambda: {"kernel": jnp.ones((16, 8))},
    "list_and_none": lambda: [{"kernel": jnp.ones((16, 8)), "bias": None}, jnp.ones(3)],
    "namedtuple": lambda: Layer(jnp.ones((16, 8)), None),
    "nnx": nnx_state,
    "linen": linen_params,
    "equinox": lambda: Equinox(jnp.ones((16, 8))),
    "haiku": lambda: {"mlp/~/linear": {"kernel": jnp.ones((16, 8)), "b": jnp.zeros(8)}},
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_works_on_any_tree_of_parameters(name, pattern, tree):
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    optimizer, params = optimizer_for(method), TREES[tree]()

    def step(params, state):
        weights = method.weights(params, state)
        assert jax.tree.structure(weights) == jax.tree.structure(params)
        grads = jax.tree.map(jnp.ones_like, weights)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    new, _ = jax.eval_shape(step, params, state)
    assert jax.tree.structure(new) == jax.tree.structure(params)


@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_a_value_that_can_be_hashed_and_a_state_that_belongs_to_it(name, pattern):
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    twin = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    assert (method, hash(method)) == (twin, hash(twin))
    params = parameters()
    state = optimizer_for(twin).init(params)
    assert method.find(state).method is twin
    with pytest.raises(ValueError, match="finds 0 states of its own"):
        dataclasses.replace(method, seed=1).weights(params, state)


@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_a_forgotten_forward_is_an_error_not_a_dense_run(name, pattern):
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    optimizer, params = optimizer_for(method), parameters()
    state = optimizer.init(params)
    with pytest.raises(ValueError, match=r"was not told what the forward pass saw; take gradients"):
        optimizer.update(params, state, params)
    with pytest.raises(ValueError, match=r"saw first\.kernel as it is stored, not sparse"):
        optimizer.update(params, state, params, weights=params)


@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_continues_bit_for_bit_from_a_state_that_was_stored(name, pattern):
    method = METHODS[name](recipe=recipe(PATTERNS[pattern]))
    optimizer = optimizer_for(method)
    whole = train(method, optimizer, 10)
    params, state = train(method, optimizer, 5)
    stored = jax.tree.map(np.asarray, (params, state))
    resumed = train(method, optimizer, 5, *jax.tree.map(jnp.asarray, stored))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), whole, resumed))


def pruned_by_half(params, pattern):
    """Parameters for `Frozen`, which keeps the zeros that it finds."""
    prune = lambda kernel: jnp.where(pattern.mask(jnp.abs(kernel), 0), kernel, 0)  # noqa: E731
    return {name: {**layer, "kernel": prune(layer["kernel"])} for name, layer in params.items()}


def used(method, params, state):
    """What the forward pass multiplies by, by path; what has just grown is 0 and counts."""
    weights = leaves_by_path(method.weights(params, state))
    masks = method.masks(params, state)
    return {path: (weights[path] != 0) | mask for path, mask in masks.items()}


def has_in_full(pattern, used):
    """Whether nothing more is used than a pattern allows."""
    if isinstance(pattern, NM):
        groups = [np.asarray(each).reshape(-1, pattern.m, each.shape[1]).sum(1) for each in used]
        return max(group.max() for group in groups) <= pattern.n
    return sum(each.sum() for each in used) <= (1 - pattern.sparsity) * sum(e.size for e in used)


@pytest.mark.parametrize(("name", "pattern"), ONE_OF_EACH)
def test_says_how_dense_each_step_is_and_which_gradients_it_needs(name, pattern):
    pattern = PATTERNS[pattern]
    method = METHODS[name](recipe=recipe(pattern))
    optimizer, params = optimizer_for(method, "sgd"), parameters()
    params = pruned_by_half(params, pattern) if name == "Frozen" else params
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, added):
        weights = method.weights(params, state)
        grads = leaves_by_path(jax.grad(loss)(weights, *batch()))
        keep = used(method, params, state)
        more = {path: jnp.where(keep[path], grads[path], grads[path] + added) for path in keep}
        grads = replace_leaves(weights, grads | more)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    for number in range(12):
        keep = used(method, params, state).values()
        size = sum(each.size for each in keep)
        share = sum(int(each.sum()) for each in keep) / size
        # A threshold for all prunes whole weights; groups of N:M are all alike.
        within = 1e-6 if isinstance(pattern, NM) else 1 / size
        assert share == pytest.approx(float(method.density(pattern, number)), abs=within), number
        assert method.settled(pattern, number) == has_in_full(pattern, keep), number
        after, other = (step(params, state, added) for added in (0.0, 1e3))
        same = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, other))
        assert same == (share == 1 or bool(method.masks_gradients(number))), number
        params, state = after
