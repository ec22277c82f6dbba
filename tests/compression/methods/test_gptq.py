import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.hessian import RAISES
from gossamer.compression.methods import (
    GPTQ,
    WandaGPTQ,
    gptq,
    magnitude_mask,
    sparsegpt,
    wanda_mask,
)
from gossamer.compression.methods.method import Task
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, Codebook, Float8, Int
from gossamer.recipe import Rule
from gossamer.sparsity import NM, Block, Unstructured
from tests.compression import oracle
from tests.compression.golden_layer import GRAM, KERNEL
from tests.compression.layers import golden_error, layer, output_error

# Made by the released GPTQ code on the golden layer: asymmetric, damping 0.01; with act-order,
# static groups; without, blocks of one group, since it fits grids to what the blocks before left.
# Bits, group, act-order: kernel [out, in], output error.
GOLDEN = {
    "4 bits": (
        (4, None, False),
        [[0.9, -0.4, 0.4, 0.1, -0.6, 0.3, 0.5, -0.1], [0.2, 0.7, -0.3, 0.6, 0.1, -0.8, 0.1, 0.4]],
        0.0775,
    ),
    "4 bits, act-order": (
        (4, None, True),
        [[0.9, -0.5, 0.4, 0.1, -0.6, 0.3, 0.4, 0], [0.2, 0.7, -0.3, 0.7, 0.2, -0.8, 0.1, 0.4]],
        0.0575,
    ),
    "3 bits, act-order": (
        (3, None, True),
        [
            [0.857143, -0.428571, 0.428571, 0, -0.642857, 0.214286, 0.428571, 0],
            [0.214286, 0.642857, -0.214286, 0.642857, 0.214286, -0.857143, 0, 0.428571],
        ],
        0.164031,
    ),
    "4 bits, groups": (
        (4, 4, False),
        [
            [0.866667, -0.346667, 0.346667, 0.086667, -0.594743, 0.223029, 0.5204, -0.074343],
            [0.2, 0.666667, -0.266667, 0.666667, 0.166764, -0.833821, 0, 0.416911],
        ],
        0.053348,
    ),
    "4 bits, groups, act-order": (
        (4, 4, True),
        [
            [0.866667, -0.346667, 0.346667, 0.086667, -0.586667, 0.22, 0.513333, -0.073333],
            [0.2, 0.666667, -0.266667, 0.6, 0.083333, -0.75, 0.083333, 0.416667],
        ],
        0.030344,
    ),
    "3 bits, groups, act-order": (
        (3, 4, True),
        [
            [0.928571, -0.371429, 0.371429, 0, -0.628571, 0.314286, 0.471429, 0],
            [0.285714, 0.571429, -0.285714, 0.571429, 0, -0.714286, 0, 0.535714],
        ],
        0.132704,
    ),
}
FORMATS = [
    Int(4),
    Int(4, symmetric=False),
    Int(3, group=32, symmetric=False, scale="bfloat16"),
    Codebook(E2M1, group=32, scale="bfloat16"),
    HBFP(4),
    MX("e2m1"),
    MX("int8"),
    Float8("e4m3"),
    NVFP4(),
]


@pytest.mark.rounding  # weights in the middle between two codes
@pytest.mark.parametrize(("settings", "want", "error"), GOLDEN.values(), ids=GOLDEN)
def test_golden(settings, want, error):
    bits, group, act_order = settings
    format = Int(bits, group=group, symmetric=False)
    solved = gptq(jnp.asarray(KERNEL), jnp.asarray(GRAM), format=format, act_order=act_order)
    np.testing.assert_allclose(solved.values.T, want, atol=1e-6)  # printed to six decimals
    assert golden_error(solved.values) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "2:4"])
@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize(
    ("format", "grid"),
    [
        (Int(4), oracle.symmetric(4)),
        (Int(4, symmetric=False), oracle.asymmetric(4)),
        (Int(4, group=32), oracle.symmetric(4, 32)),
        (Int(3, group=64, symmetric=False), oracle.asymmetric(3, 64)),
    ],
    ids=["symmetric", "asymmetric", "symmetric groups", "asymmetric groups"],
)
def test_agrees_with_float64_a_column_at_a_time(format, grid, act_order, masked):
    kernel, gram = layer()
    mask = magnitude_mask(kernel, NM(2, 4)) if masked else None
    pruned = kernel if mask is None else jnp.where(mask, kernel, 0)
    solved = gptq(kernel, gram, format=format, mask=mask, act_order=act_order)
    want = oracle.solve(
        np.asarray(pruned).T,
        np.asarray(gram),
        grid=grid,
        keep=None if mask is None else np.asarray(mask).T,
        act_order=act_order,
    )
    # float32 may decide a near-tie the other way, after which that output goes its own way.
    assert np.mean(~np.isclose(solved.values.T, want.weights, rtol=1e-4, atol=1e-5)) < 0.01
    error = output_error(want.weights.T, kernel, gram)
    assert output_error(solved.values, kernel, gram) == pytest.approx(error, rel=0.005)


@pytest.mark.parametrize("format", [Int(4), Int(3, group=32), NVFP4()], ids=str)
def test_without_act_order_and_mask_it_is_sparsegpt_without_a_pattern(format):
    kernel, gram = layer()
    want = sparsegpt(kernel, gram, pattern=None, format=format)
    got = gptq(kernel, gram, format=format, act_order=False)
    np.testing.assert_array_equal(got.values, want.values)


@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_codes_of_every_format_stand_for_the_values_and_beat_nearest_rounding(format, act_order):
    kernel, gram = layer()
    solved = gptq(kernel, gram, format=format, act_order=act_order)
    assert solved.codes is not None
    assert solved.codes.codes.dtype == format.encode(kernel).codes.dtype
    np.testing.assert_array_equal(format.decode(solved.codes), solved.values)
    # Rounding each output on its own grid is stable: every value is a point of that grid.
    scaled = format.round(_blocks(solved.values, solved.codes), *_spread(solved.codes))
    np.testing.assert_array_equal(
        np.asarray(scaled, np.float32).reshape(kernel.shape),
        np.asarray(solved.codes.codes, np.float32),
    )
    nearest = output_error(format.quantize(kernel), kernel, gram)
    assert output_error(solved.values, kernel, gram) < nearest


def _blocks(values, codes):
    unit = 1 if codes.tensor_scale is None else codes.tensor_scale
    return (values / unit).reshape(codes.scales.shape[0], -1, values.shape[1])


def _spread(codes):
    zeros = None if codes.zeros is None else codes.zeros[:, None]
    return codes.scales[:, None], zeros


def test_act_order_is_better_where_inputs_are_uneven():
    kernel, gram = layer()
    for format in (Int(4), Int(4, group=32)):
        errors = [
            output_error(gptq(kernel, gram, format=format, act_order=o).values, kernel, gram)
            for o in (True, False)
        ]
        assert errors[0] < 0.5 * errors[1]


def test_act_order_does_not_depend_on_the_order_in_which_inputs_come():
    kernel, gram = layer()
    shuffled = np.random.default_rng(0).permutation(256)
    want = gptq(kernel, gram, format=Int(4), act_order=True).values
    got = gptq(kernel[shuffled], gram[shuffled][:, shuffled], format=Int(4), act_order=True).values
    np.testing.assert_array_equal(got, want[shuffled])


def test_groups_under_act_order_are_those_of_the_stored_layout():
    kernel, gram = layer()
    format = Int(4, group=32, symmetric=False)
    codes = gptq(kernel, gram, format=format, act_order=True).codes
    np.testing.assert_array_equal(codes.scales, format.encode(kernel).scales)
    np.testing.assert_array_equal(codes.zeros, format.encode(kernel).zeros)


@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize("format", [Int(4), Int(4, group=32)], ids=str)
def test_uncorrelated_inputs_leave_nothing_to_make_up_for(format, act_order):
    kernel, _ = layer()
    solved = gptq(kernel, jnp.eye(256), format=format, act_order=act_order)
    np.testing.assert_array_equal(solved.values, format.quantize(kernel))


@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize("format", [Int(4), Int(4, group=32, symmetric=False)], ids=str)
def test_what_a_mask_prunes_stays_zero_and_what_stays_makes_up_for_rounding(format, act_order):
    kernel, gram = layer()
    mask = wanda_mask(kernel, jnp.sqrt(jnp.diag(gram)), NM(2, 4))
    pruned = jnp.where(mask, kernel, 0)
    solved = gptq(kernel, gram, format=format, mask=mask, act_order=act_order)
    assert (np.asarray(solved.values)[~np.asarray(mask)] == 0).all()
    error = output_error(solved.values, pruned, gram)
    assert error < output_error(format.quantize(pruned), pruned, gram)


def test_dead_inputs_get_zeros_and_change_nothing_else():
    dead = (0, 5, 100)
    kernel, gram = layer(dead=dead)
    values = gptq(kernel, gram, format=Int(4, group=32), act_order=True).values
    assert (np.asarray(values)[list(dead)] == 0).all()
    assert np.isfinite(values).all()


def test_wanda_gptq_is_wanda_s_mask_then_gptq():
    kernel, gram = layer()
    rule = Rule(path="w", pattern=NM(2, 4), weights=Int(4, group=32))
    got = WandaGPTQ(act_order=True).compress(Task(path="w", kernel=kernel, rule=rule, gram=gram))
    mask = wanda_mask(kernel, jnp.sqrt(jnp.diag(gram)), NM(2, 4))
    want = gptq(kernel, gram, format=rule.weights, mask=mask, act_order=True)
    np.testing.assert_array_equal(got.mask, mask)
    np.testing.assert_array_equal(got.values, want.values)


def equally_correlated(size: int, correlation: float):
    """Eigenvalues 1 - correlation, all but one of them."""
    return jnp.full((size, size), correlation).at[jnp.diag_indices(size)].set(1.0)


def test_damping_rises_where_the_matrix_is_indefinite_and_is_told():
    kernel, gram = layer(16, 4)
    assert gptq(kernel, gram, format=Int(4)).damping == 0.01
    solved = gptq(kernel, equally_correlated(16, 1.05), format=Int(4))
    assert solved.damping == pytest.approx(0.1)
    assert np.isfinite(solved.values).all()
    most = 0.01 * 10**RAISES
    with pytest.raises(ValueError, match=f"damping={most:g} is not positive definite"):
        gptq(kernel, equally_correlated(16, 50.0), format=Int(4))


REFUSED = {
    "mask": ({"mask": jnp.ones((8, 3), bool)}, r"mask of its shape, got \(8, 3\)"),
    "gram": ({"gram": jnp.eye(8)}, r"needs a Gram matrix \(16, 16\), got \(8, 8\)"),
    "groups": ({"format": Int(4, group=6)}, "multiple of 6, got 16"),
    "damping": ({"damping": -1.0}, "gptq needs a finite damping > 0, got -1.0"),
    "block": ({"block": 0}, "gptq needs block >= 1, got 0"),
    "kernel": ({"kernel": jnp.full((16, 3), jnp.inf)}, r"The kernel \(16, 3\) holds NaN or Inf"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(change, message):
    whole = {"kernel": jnp.ones((16, 3)), "gram": jnp.eye(16), "format": Int(4)} | change
    with pytest.raises(ValueError, match=message):
        gptq(whole.pop("kernel"), whole.pop("gram"), **whole)


@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5), Block(0.5, (4, 1))], ids=str)
def test_gptq_says_that_it_does_not_prune(pattern):
    reason = GPTQ().why_not(Rule(path="w", pattern=pattern, weights=Int(4)))
    assert reason is not None
    assert f"does not prune, but the rule has the pattern {pattern}; choose sparsegpt" in reason


@pytest.mark.parametrize("method", [GPTQ(), WandaGPTQ()], ids=lambda method: method.name)
def test_a_rule_without_a_format_leaves_nothing_to_round(method):
    assert "names no format" in method.why_not(Rule(path="w"))
    assert method.why_not(Rule(path="w", weights=Int(4))) is None


@pytest.mark.parametrize("method", [GPTQ, WandaGPTQ])
def test_a_damping_that_cannot_work_is_refused(method):
    with pytest.raises(ValueError, match="finite damping > 0, got 0"):
        method(damping=0.0)
