"""Recipes around the weights of a model, inside a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gossamer
from gossamer.models import build
from gossamer.quantization import Int, QuantAware, QuantizedGradients, StraightThrough
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, magnitude
from gossamer.training import fake_quantize, quantize_aware
from tests.inference.tiny import tiny

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 200, (2, 12)))
BLOCKS = r"layers\..*\.kernel"
ENDS = r"(embedding|output)\.kernel"


TWO_OF_FOUR = NM(2, 4)
GROUPS = Int(4, group=16, scale="bfloat16")


def recipe(pattern=TWO_OF_FOUR, weights=GROUPS):
    return Recipe(
        rules=(
            Rule(path=BLOCKS, pattern=pattern, weights=weights, activations=Int(8)),
            Rule(path=ENDS, weights=Int(8), activations=Int(8)),
        )
    )


def parts(checkpoint):
    return nnx.split(build(checkpoint.config, checkpoint.read))


def named(state):
    """Each weight by its path."""
    return {".".join(map(str, p)): leaf.get_value() for p, leaf in nnx.to_flat_state(state)}


def loss(graph, state, **options):
    logits = nnx.merge(graph, quantize_aware(state, **options))(TOKENS[:, :-1])
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[:, 1:, None], -1)
    return -picked.mean()


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize(
    "rules",
    [recipe(), recipe(pattern=None, weights=Int(8)), recipe(None, Int(4, 16, symmetric=False))],
    ids=["2:4-int4", "int8", "asymmetric"],
)
def test_a_model_trained_natively_and_packed_gives_the_logits_of_training(family, rules):
    checkpoint = tiny(family, num_layers=1)
    graph, state = parts(checkpoint)
    gradient = jax.jit(jax.grad(lambda state: loss(graph, state, recipe=rules)))
    for _ in range(3):
        state = jax.tree.map(lambda w, g: w - 0.1 * g, state, gradient(state))
    trained = checkpoint.with_tensors(jax.tree.map(np.asarray, named(state)))
    packed = gossamer.compress(trained, rules, method="magnitude")
    want = jax.jit(lambda state: nnx.merge(graph, quantize_aware(state, rules))(TOKENS))(state)
    got = build(packed.config, packed.read)(TOKENS)
    # The same products: what differs is in what order XLA sums norms and attention.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()))
    assert float(jnp.abs(build(trained.config, trained.read)(TOKENS) - want).max()) > 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"multiply": "fake"},
        {"activation_scale": "tensor"},
        {"backward": StraightThrough(scale_gradient="flowing")},
        {"backward": QuantizedGradients(), "key": jax.random.key(0)},
    ],
    ids=["native", "fake", "tensor", "flowing", "integer gradients"],
)
def test_training_lowers_the_loss(options):
    graph, state = parts(tiny("llama", num_layers=1))
    rules = recipe(weights=Int(8))
    step = jax.jit(jax.value_and_grad(lambda state: loss(graph, state, recipe=rules, **options)))
    losses = []
    for _ in range(6):
        value, gradient = step(state)
        losses.append(float(value))
        state = jax.tree.map(lambda w, g: w - 0.1 * g, state, gradient)
    assert losses[-1] < 0.9 * losses[0]


def test_what_is_pruned_gets_no_gradient_and_stays_zero():
    graph, state = parts(tiny("llama", num_layers=1))
    path = "layers.0.mlp.up_proj.kernel"
    wrapped = nnx.to_pure_dict(quantize_aware(state, recipe()))
    weight = wrapped["layers"][0]["mlp"]["up_proj"]["kernel"]
    assert isinstance(weight, QuantAware)
    gradient = jax.jit(jax.grad(lambda state: loss(graph, state, recipe=recipe())))(state)
    kernel, d = np.asarray(named(state)[path]), np.asarray(named(gradient)[path])
    mask = np.asarray(NM(2, 4).mask(magnitude(jnp.asarray(kernel)), 0))
    np.testing.assert_array_equal(d != 0, mask)
    np.testing.assert_array_equal(np.asarray(weight.materialize())[~mask], 0)


PARAMS = {"w": jnp.array([[7.0], [-3.4], [3.3], [0.1]]), "b": jnp.ones(1)}


def one(**fields):
    return Recipe(rules=(Rule(path="w", **fields),))


def test_scales_are_chosen_after_pruning():
    """The channel's largest weight is masked: the scale is that of what is left."""
    masks = {"w": jnp.array([[False], [True], [True], [False]])}
    weight = quantize_aware(PARAMS, one(pattern=NM(2, 4), weights=Int(4)), masks=masks)["w"]
    np.testing.assert_allclose(weight.materialize().ravel(), [0, -3.4, 3.4, 0], rtol=1e-6)


def test_the_other_order_warns_and_prunes_what_rounding_made():
    rules = one(pattern=NM(2, 4), weights=Int(4))
    with pytest.warns(UserWarning, match=r"quantized before they are pruned.*Theorem 3\.6"):
        weight = quantize_aware(PARAMS, rules, order="quantize-then-prune")["w"]
    # -3.4 and 3.3 both round to 3 steps of 1: the first stays, and so does the scale of 7.
    np.testing.assert_allclose(weight.materialize().ravel(), [7, -3, 0, 0], rtol=1e-6)


def test_given_masks_are_kept_whatever_weights_become():
    masks = {"w": jnp.array([[False], [False], [True], [True]])}
    pruned = quantize_aware(PARAMS, one(pattern=NM(2, 4)), masks=masks)
    np.testing.assert_array_equal(pruned["w"], jnp.where(masks["w"], PARAMS["w"], 0))
    assert pruned["b"] is PARAMS["b"]


def test_each_weight_has_noise_of_its_own():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    rules = Recipe(rules=(Rule(path="[ab]", weights=Int(4), activations=Int(8)),))
    wrapped = quantize_aware(params, rules, backward=QuantizedGradients(), key=jax.random.key(0))
    assert wrapped["a"].key != wrapped["b"].key


REFUSED = {
    "no matrix": (
        {"recipe": Recipe(rules=(Rule(path="b", weights=Int(4)),))},
        r"b \(1,\) is float32",
    ),
    "groups that do not fit": ({"recipe": one(weights=Int(4, group=3))}, "multiple of 3, got 4"),
    "a pattern that does not fit": ({"recipe": one(pattern=NM(2, 8))}, "multiple of 8"),
    "a mask of no rule": (
        {"recipe": one(weights=Int(4)), "masks": {"v": PARAMS["w"] > 0}},
        "the mask of 'v' belongs to no rule",
    ),
    "a mask without a pattern": (
        {"recipe": one(weights=Int(4)), "masks": {"w": PARAMS["w"] > 0}},
        r"w \(4, 1\) has a mask, and rule 'w' no pattern",
    ),
    "a mask of another shape": (
        {"recipe": one(pattern=NM(2, 4)), "masks": {"w": jnp.ones((2, 2), bool)}},
        r"has a mask of shape \(2, 2\)",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_wrapped_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quantize_aware(PARAMS, **options)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
def test_rounded_weights_are_those_of_compression_of_what_a_method_left(axis, dtype):
    rule = Rule(path="w", pattern=NM(2, 4), weights=Int(4, group=4))
    rules = Recipe(rules=(rule,))
    w = jax.random.normal(jax.random.key(0), (8, 12), dtype)
    kept = jnp.where(NM(2, 4).mask(magnitude(w), axis), w, 0)
    got = fake_quantize({"w": kept}, rules, reduction_axis=axis)["w"]
    want = gossamer.compress({"w": w}, rules, reduction_axis=axis)["w"]
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def test_rounded_weights_pass_gradients_straight_through_and_leave_the_rest():
    rules = Recipe(rules=(Rule(path="w", weights=Int(2)), Rule(path="v", pattern=NM(1, 4))))
    params = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "v": jnp.ones((4, 1)), "f": jnp.tanh}
    rounded = fake_quantize(params, rules)
    assert rounded["v"] is params["v"]
    assert rounded["f"] is jnp.tanh
    np.testing.assert_array_equal(rounded["w"], Int(2).encode(params["w"]).decode())
    cotangent = jnp.arange(12.0).reshape(4, 3)
    arrays = {"w": params["w"], "v": params["v"]}
    grads = jax.grad(lambda p: (fake_quantize(p, rules)["w"] * cotangent).sum())(arrays)
    np.testing.assert_array_equal(grads["w"], cotangent)
    np.testing.assert_array_equal(grads["v"], 0)


@pytest.mark.parametrize(
    ("rule", "axis", "message"),
    [
        (Rule(path="w", pattern=NM(2, 4)), 0, "No rule of the recipe names a format"),
        (Rule(path="w", weights=Int(4)), 2, "reduction axis 0 or 1, got reduction_axis=2"),
        (Rule(path="w", weights=Int(4), activations=Int(8)), 0, r"w \(8, 6\): .* leave `activ"),
        (Rule(path="w", weights=Int(4, group=8)), 1, r"w \(8, 6\): .*8.*6"),
        (Rule(path="b", weights=Int(4)), 0, r"b \(6,\) is float32, and rules are for matrices"),
    ],
    ids=["no format", "axis", "activations", "group", "no matrix"],
)
def test_weights_that_cannot_be_rounded_are_refused(rule, axis, message):
    params = {"w": jnp.ones((8, 6)), "b": jnp.ones(6)}
    with pytest.raises(ValueError, match=message):
        fake_quantize(params, Recipe(rules=(rule,)), reduction_axis=axis)
