"""The quantized product forwards, and its three rules backwards against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import (
    HBFP,
    MX,
    NVFP4,
    ClipSearch,
    Codebook,
    FloatResiduals,
    Int,
    QuantAware,
    Quantized,
    QuantizedGradients,
    Scheme,
    StraightThrough,
)
from gossamer.quantization.codebook import E2M1
from gossamer.weights import Weight, dot, take

IN, OUT, ROWS = 64, 24, 10
KERNEL = jax.random.normal(jax.random.key(0), (IN, OUT))
X = jax.random.normal(jax.random.key(1), (ROWS, IN))
G = jax.random.normal(jax.random.key(2), (ROWS, OUT))
UNIT = 2.0**-24  # what a float32 rounding changes at most, relatively
FLOWING = StraightThrough(scale_gradient="flowing")
NEAREST = QuantizedGradients(rounding="nearest")
WEIGHTS = [
    Int(8),
    Int(4),
    Int(2),
    Int(4, group=16),
    Int(2, group=16, scale="bfloat16"),
    Int(8, symmetric=False),
    Int(2, group=16, symmetric=False),
    Int(2, clip=ClipSearch()),
    Int(4, group=16, clip=ClipSearch()),
    Codebook(E2M1),
    HBFP(8, group=16),
]


def float64(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def rounding(terms, *factors):
    """How far a float32 product, summed in any order, can be off: factors are made of few more."""
    sizes = functools.reduce(np.matmul, [np.abs(factor) for factor in factors])
    return (terms + 8) * UNIT * sizes


def gradients(scheme, x=X, kernel=KERNEL, g=G, **fields):
    def loss(x, kernel):
        return jnp.sum(QuantAware(kernel, scheme, **fields).dot(x) * g)

    return [np.asarray(d, np.float64) for d in jax.grad(loss, argnums=(0, 1))(x, kernel)]


def values(x, format):
    """Rows as their codes stand for."""
    return np.asarray(format.quantize(x.T).T, np.float64)


GOLDEN = [0.9, -1.0, 0.5, 0.3, -0.25, 0.1, -0.6, 0.05]


@pytest.mark.parametrize(
    ("bits", "codes"),
    [
        (8, [114, -127, 64, 38, -32, 13, -76, 6]),
        (4, [6, -7, 3, 2, -2, 1, -4, 0]),
        (2, [1, -1, 0, 0, 0, 0, -1, 0]),
    ],
)
def test_golden_channel_multiplies_as_its_codes(bits, codes):
    """Codes worked out by hand in the sheet of praxis' post-training quantizer, half to even."""
    kernel = jnp.array(GOLDEN)[:, None]
    weight = QuantAware(kernel, Scheme(weights=Int(bits), activations=Int(8)))
    scale = 1.0 / (2 ** (bits - 1) - 1)
    got = weight.dot(127 * jnp.eye(8)).ravel() / 127  # each row has scale 1
    np.testing.assert_allclose(got, scale * np.array(codes), rtol=4 * UNIT)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_forward_has_the_bits_of_the_post_training_product(weights):
    aware = QuantAware(KERNEL, Scheme(weights=weights, activations=Int(8)))
    quantized = Quantized(weights.encode(KERNEL), weights, Int(8))
    assert isinstance(aware, Weight)
    np.testing.assert_array_equal(dot(X, aware), dot(X, quantized))
    np.testing.assert_array_equal(aware.materialize(), quantized.materialize())
    indices = jnp.array([[0, 5], [23, 23]])
    np.testing.assert_array_equal(take(aware, indices), take(quantized, indices))


@pytest.mark.parametrize("weights", [*WEIGHTS, NVFP4(), MX("e2m1")], ids=str)
def test_weights_alone_multiply_as_what_they_stand_for(weights):
    aware = QuantAware(KERNEL, Scheme(weights=weights))
    quantized = Quantized(weights.encode(KERNEL), weights)
    np.testing.assert_allclose(dot(X, aware), dot(X, quantized), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(take(aware, jnp.arange(3)), take(quantized, jnp.arange(3)))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_native_and_fake_forwards_differ_by_rounding_alone(weights, scale):
    native, fake = (
        QuantAware(
            KERNEL,
            Scheme(weights=weights, activations=Int(8), activation_scale=scale, multiply=multiply),
        ).dot(X)
        for multiply in ("native", "fake")
    )
    x = values(X, Int(8)) if scale == "row" else values(X.reshape(1, -1), Int(8)).reshape(X.shape)
    w = np.asarray(weights.quantize(KERNEL), np.float64)
    np.testing.assert_array_less(np.abs(fake - x @ w), rounding(IN, x, w))
    np.testing.assert_array_less(np.abs(native - x @ w), rounding(IN, x, w))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("multiply", ["native", "fake"])
def test_straight_through_gradients_are_those_of_the_rounded_operands(weights, multiply):
    """Rule R1, also for what lies at the ends of the grid: no half gradients."""
    dx, dw = gradients(Scheme(weights=weights, activations=Int(8), multiply=multiply))
    x, (w, g) = values(X, Int(8)), float64(weights.quantize(KERNEL), G)
    want = x.T @ g * inside(KERNEL, weights)
    np.testing.assert_array_less(np.abs(dx - g @ w.T), rounding(OUT, g, w.T))
    np.testing.assert_array_less(np.abs(dw - want), rounding(ROWS, x.T, g) + 1e-30)


def inside(kernel, format):
    """What is not clipped by more than half a step, in float64."""
    codes = format.encode(kernel)
    groups, out = codes.scales.shape
    steps = float64(kernel)[0].reshape(groups, -1, out) / float64(codes.scales)[0][:, None]
    if codes.zeros is not None:
        steps = steps + float64(codes.zeros)[0][:, None]
    low, high = format.ends
    half = format.widest_step / 2
    return ((steps >= low - half) & (steps <= high + half)).reshape(kernel.shape)


def test_clipping_search_clips_something_and_the_plain_grid_nothing():
    assert inside(KERNEL, Int(2)).all()
    clipped = ~inside(KERNEL, Int(2, clip=ClipSearch()))
    assert 0.01 < clipped.mean() < 0.2


def test_weights_at_both_ends_of_the_grid_get_their_whole_gradient():
    """`jnp.clip` would halve that of +absmax and leave that of -absmax alone."""
    kernel = jnp.array([[1.0], [-1.0], [0.3]])
    _, dw = gradients(Scheme(weights=Int(2)), X[:, :3], kernel, G[:, :1])
    np.testing.assert_allclose(dw, float64(X[:, :3].T @ G[:, :1])[0], rtol=1e-6)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=str)
def test_float_residuals_give_the_gradients_of_the_float_product(activations):
    """Rule R2."""
    scheme = Scheme(weights=Int(2), activations=activations, backward=FloatResiduals())
    dx, dw = gradients(scheme)
    x, w, g = float64(X, KERNEL, G)
    np.testing.assert_array_less(np.abs(dx - g @ w.T), rounding(OUT, g, w.T))
    np.testing.assert_array_less(np.abs(dw - x.T @ g), rounding(ROWS, x.T, g))


def round_64(values, axis, qmax=127):
    """Codes and scales by hand, scales rounded to float32 as everywhere."""
    scale = np.abs(values).max(axis, keepdims=True) * np.float32(1 / qmax)
    return np.rint(values * (np.float32(1) / scale)), scale


@pytest.mark.parametrize(
    "weights", [Int(8), Int(4), Int(4, symmetric=False), Codebook(E2M1)], ids=str
)
@pytest.mark.parametrize("multiply", ["native", "fake"])
@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_quantized_gradients_are_products_of_codes(weights, multiply, scale):
    """Rule R3, to nearest."""
    scheme = Scheme(
        weights=weights,
        activations=Int(8),
        activation_scale=scale,
        multiply=multiply,
        backward=NEAREST,
    )
    dx, dw = gradients(scheme)
    codes = weights.encode(KERNEL)
    q_w = float64(codes.codes)[0] - (0 if codes.zeros is None else float64(codes.zeros)[0])
    q_x, s_x = round_64(np.asarray(X), 1 if scale == "row" else None)
    g = np.asarray(G)
    q, s = round_64(g * np.asarray(codes.scales), 1)
    np.testing.assert_allclose(dx, s.astype(float) * (q.astype(float) @ q_w.T), rtol=4 * UNIT)
    q, s = round_64(g * s_x, 0)
    np.testing.assert_allclose(dw, s.astype(float) * (q_x.T.astype(float) @ q), rtol=4 * UNIT)


def test_stochastic_gradients_have_no_bias_and_nearest_ones_do():
    scheme = Scheme(weights=Int(4), activations=Int(8), backward=QuantizedGradients(format=Int(3)))
    keys = jax.random.split(jax.random.key(3), 2000)
    draw = jax.jit(jax.vmap(lambda key: jax.grad(loss, argnums=(0, 1))(X, KERNEL, key)))

    def loss(x, kernel, key):
        return jnp.sum(QuantAware(kernel, scheme, key).dot(x) * G)

    exact = gradients(Scheme(weights=Int(4), activations=Int(8)))
    biased = Scheme(
        weights=Int(4),
        activations=Int(8),
        backward=QuantizedGradients(format=Int(3), rounding="nearest"),
    )
    for drawn, want, nearest in zip(draw(keys), exact, gradients(biased), strict=True):
        deviation = np.std(drawn, axis=0) / np.sqrt(len(keys))
        # 1,536 elements at most: one beyond 5.5 deviations has a chance below 1e-4.
        assert (np.abs(np.mean(drawn, axis=0) - want) < 5.5 * deviation).all()
        assert (np.abs(nearest - want) > 5.5 * deviation).mean() > 0.5


def surrogate(values, scale, start, codes):
    """What straight-through differentiates: rounding errors stay what they are."""
    steps = values / scale
    return (steps + (codes - start)) * scale


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_flowing_scale_gradient_is_the_numerical_derivative_of_the_surrogate(bits):
    scheme = Scheme(weights=Int(bits), backward=FLOWING)
    _, dw = gradients(scheme)
    x, w, g = float64(X, KERNEL, G)
    qmax = 2 ** (bits - 1) - 1
    codes = float64(Int(bits).encode(KERNEL).codes)[0]
    start = w / (np.abs(w).max(0) / qmax)

    def loss(w):
        return np.sum(x.T @ g * surrogate(w, np.abs(w).max(0) / qmax, start, codes))

    for place in [(0, 0), (5, 3), *((np.abs(w[:, o]).argmax(), o) for o in range(4))]:
        step = np.zeros_like(w)
        step[place] = 1e-6
        numerical = (loss(w + step) - loss(w - step)) / 2e-6
        # Float32 sums of 64 terms of about 10, each off by 2^-24, in the part of the scale.
        np.testing.assert_allclose(dw[place], numerical, rtol=1e-4, atol=1e-3)
    assert np.abs(dw - x.T @ g).max() > 0.1  # the scale's part is there


@pytest.mark.parametrize("scale", ["row", "tensor"])
@pytest.mark.parametrize(
    "weights",
    [Int(4), Int(2, group=16), Int(4, symmetric=False), Int(2, clip=ClipSearch())],
    ids=str,
)
def test_flowing_gradients_along_the_operands_are_the_true_derivative(weights, scale):
    """Twice the operand has the same codes and twice the values: rounding is differentiable there.

    So the gradient times the operand is the output times its cotangent, for `x` and the kernel.
    """
    scheme = Scheme(weights=weights, activations=Int(8), activation_scale=scale, backward=FLOWING)
    dx, dw = gradients(scheme)
    y = QuantAware(KERNEL, scheme).dot(X)
    np.testing.assert_array_equal(QuantAware(KERNEL, scheme).dot(2 * X), 2 * y)
    np.testing.assert_array_equal(QuantAware(2 * KERNEL, scheme).dot(X), 2 * y)
    x, w, y, g = float64(X, KERNEL, y, G)
    want = np.sum(y * g)
    # Sums of 1,536 terms of size 10, each off by some 10 roundings.
    np.testing.assert_allclose(np.sum(dx * x), want, atol=0.01)
    np.testing.assert_allclose(np.sum(dw * w), want, atol=0.01)


def test_ties_of_the_largest_weight_share_the_gradient_of_the_scale():
    kernel = jnp.array([[1.0], [-1.0], [0.3]])
    scheme = Scheme(weights=Int(4), backward=FLOWING)
    _, dw = gradients(scheme, jnp.eye(3), kernel, jnp.array([[0.0], [0.0], [1.0]]))
    part = (2 - 0.3 * 7) / 7  # (q - w / s) / qmax of the only element with a gradient
    np.testing.assert_allclose(dw.ravel(), [part / 2, -part / 2, 1.0], rtol=1e-5)


def test_pruned_codes_are_zero_and_get_no_gradient():
    mask = jax.random.bernoulli(jax.random.key(4), 0.5, KERNEL.shape)
    for weights in (Int(4), Int(4, group=16, symmetric=False)):
        for backward in (StraightThrough(), FloatResiduals()):
            scheme = Scheme(weights=weights, activations=Int(8), backward=backward)
            weight = QuantAware(KERNEL, scheme, mask=mask)
            assert (np.asarray(weight.materialize())[~np.asarray(mask)] == 0).all()
            _, dw = gradients(scheme, mask=mask)
            np.testing.assert_array_equal(dw != 0, mask)


def test_gradients_keep_the_dtypes_of_bfloat16_operands():
    def loss(x, kernel):
        return QuantAware(kernel, scheme).dot(x).astype(jnp.float32).sum()

    for backward in (StraightThrough(), FloatResiduals(), NEAREST):
        scheme = Scheme(weights=Int(4), activations=Int(8), backward=backward)
        half = [array.astype(jnp.bfloat16) for array in (X, KERNEL)]
        assert {d.dtype for d in jax.grad(loss, argnums=(0, 1))(*half)} == {jnp.dtype(jnp.bfloat16)}


def test_aware_weight_is_a_pytree_that_maps_and_compiles():
    weight = QuantAware(KERNEL, Scheme(weights=Int(4), activations=Int(8)))
    want = weight.dot(X)
    np.testing.assert_array_equal(jax.jit(dot)(X, weight), want)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), weight)
    np.testing.assert_array_equal(jax.vmap(dot, in_axes=(None, 0))(X, stacked)[1], want)
    assert weight.shape == (IN, OUT)
    assert weight.nbytes == KERNEL.nbytes


REFUSED = {
    "a scale for all rows": (
        {"activations": MX("e4m3"), "multiply": "fake", "activation_scale": "tensor"},
        r"scale for all rows .* got MXFP8",
    ),
    "floats natively": ({"activations": MX("e4m3")}, "natively .*multiply='fake'"),
    "weights without integers": (
        {"weights": MX("e2m1"), "activations": Int(8)},
        "natively .* weights MXFP4",
    ),
    "asymmetric activations": (
        {"activations": Int(8, symmetric=False)},
        "Activations are quantized symmetrically",
    ),
    "integer gradients of groups": (
        {"weights": Int(4, group=16), "activations": Int(8), "backward": NEAREST},
        r"QuantizedGradients reuses .* Leave out\s+groups",
    ),
    "integer gradients of floats": ({"backward": NEAREST}, "QuantizedGradients reuses"),
    "a flowing gradient of steps": (
        {"weights": HBFP(8), "backward": FLOWING},
        "flows through the scales of Int; those of HBFP8",
    ),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_schemes_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Scheme(**{"weights": Int(4)} | fields)


def test_grouped_gradients_are_refused():
    with pytest.raises(ValueError, match=r"Gradients are quantized .* got int8, groups of 8"):
        QuantizedGradients(format=Int(8, group=8))


def test_stochastic_rounding_without_a_key_is_refused():
    scheme = Scheme(weights=Int(4), activations=Int(8), backward=QuantizedGradients())
    with pytest.raises(ValueError, match=r"QuantAware \(64, 24\) .* has no key"):
        QuantAware(KERNEL, scheme).dot(X)
