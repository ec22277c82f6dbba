import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import SmoothQuant, one_shot
from gossamer.compression.methods.smoothquant import smoothing_factors
from gossamer.inference.blockwise import begin, run_blocks
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.weights import materialize
from tests.compression.tiny_model import CONFIG, in_memory

# The sheet's example, kernel turned to [in, out].
INPUTS = np.array([[0.5, -8, 0.1, 1], [-0.2, 6, 0.3, -2], [0.1, -7, -0.2, 1.5]], np.float32)
KERNEL = np.array([[0.3, 0.02, -0.5, 0.1], [-0.1, 0.05, 0.4, 0.2]], np.float32).T
W8A8 = Recipe(
    name="w8a8",
    rules=(Rule(path=r"layers\..*\.kernel", weights=Int(8), activations=Int(8)),),
)


def test_golden():
    absmax = jnp.max(jnp.abs(INPUTS), axis=0)
    factors = np.asarray(smoothing_factors(absmax, [jnp.asarray(KERNEL)], 0.5))
    np.testing.assert_allclose(factors, [1.290994, 12.649111, 0.774597, 3.162278], rtol=1e-6)
    maxima = [0.387298, 0.632456, 0.387298, 0.632456]
    np.testing.assert_allclose(absmax / factors, maxima, rtol=2e-6)  # printed to six digits
    np.testing.assert_allclose(np.abs(KERNEL * factors[:, None]).max(axis=1), maxima, rtol=2e-6)
    smooth = (INPUTS / factors) @ (KERNEL * factors[:, None])
    np.testing.assert_allclose(smooth, INPUTS @ KERNEL, atol=1e-6)


def test_the_largest_weight_of_all_kernels_counts():
    absmax, other = jnp.ones(4), jnp.asarray(KERNEL)[:, ::-1] * 3
    got = smoothing_factors(absmax, [jnp.asarray(KERNEL), other], 0.5)
    np.testing.assert_array_equal(got, smoothing_factors(absmax, [other], 0.5))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_says_who_bears_the_difficulty(alpha):
    absmax = jnp.max(jnp.abs(INPUTS), axis=0)
    factors = smoothing_factors(absmax, [jnp.asarray(KERNEL)], alpha)
    largest = np.abs(KERNEL).max(axis=1)
    np.testing.assert_allclose(factors, absmax if alpha else 1 / largest, rtol=1e-6)


def test_channels_without_activations_or_weights_give_finite_factors():
    factors = smoothing_factors(jnp.array([0.0, 2.0]), [jnp.array([[1.0], [0.0]])], 0.5)
    assert np.isfinite(factors).all()
    assert (np.asarray(factors) > 0).all()


def test_norms_are_divided_by_the_factors_and_kernels_rounded_after_multiplication(
    tiny, calibration
):
    small, report = one_shot(tiny, W8A8, method=SmoothQuant(alpha=0.7), calibration=calibration)
    layers = range(tiny.config.num_layers)
    norms = ("attention_norm", "mlp_norm")
    assert set(report.rescaled) == {f"layers.{i}.{norm}.scale" for i in layers for norm in norms}
    assert not set(report.rescaled) & set(report.untouched)
    assert report.settings == {"alpha": 0.7}
    factors = tiny.read("layers.0.attention_norm.scale") / np.asarray(
        small.read("layers.0.attention_norm.scale")
    )
    for name in ("q_proj", "k_proj", "v_proj"):
        path = f"layers.0.attention.{name}.kernel"
        want = Int(8).quantize(jnp.asarray(tiny.read(path) * factors[:, None]))
        step = np.abs(tiny.read(path) * factors[:, None]).max() / 127
        np.testing.assert_allclose(materialize(small.read(path)), want, atol=1.01 * step)
    for path in ("layers.0.attention.o_proj.kernel", "layers.0.mlp.down_proj.kernel"):
        want = Int(8).quantize(jnp.asarray(tiny.read(path)))
        np.testing.assert_array_equal(materialize(small.read(path)), want)


def test_an_outlier_channel_costs_less_than_without_smoothing(weights, calibration):
    for index in range(CONFIG.num_layers):
        weights[f"layers.{index}.attention_norm.scale"][5] = 60.0
        weights[f"layers.{index}.mlp_norm.scale"][7] = 60.0
    model = in_memory(weights)

    def outputs(checkpoint):
        return run_blocks(checkpoint, begin(checkpoint, jnp.asarray(calibration.tokens)))

    errors = []
    for method in ("smoothquant", "rtn"):
        small, _ = one_shot(model, W8A8, method=method, calibration=calibration)
        errors.append(float(jnp.mean((outputs(small) - outputs(model)) ** 2)))
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(path="w", weights=Int(8)), "leaves them floats; name a format in `activations`"),
        (Rule(path="w"), "names no format"),
        (
            Rule(path="w", pattern=NM(2, 4), weights=Int(8), activations=Int(8)),
            "does not prune",
        ),
    ],
)
def test_rules_that_it_cannot_follow_are_refused(rule, message):
    assert message in SmoothQuant().why_not(rule)


def test_an_alpha_that_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"0 <= alpha <= 1, got 1\.5"):
        SmoothQuant(alpha=1.5)
