import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.hessian import damped
from gossamer.compression.methods import OBR, obr, wanda_mask
from gossamer.compression.methods.obr import restoration
from gossamer.quantization import HBFP, MX, NVFP4, Int
from gossamer.recipe import Rule
from gossamer.sparsity import NM, Channel, Unstructured
from tests.compression import oracle
from tests.compression.golden_layer import GRAM, KERNEL
from tests.compression.layers import golden_error, layer, output_error

# Made by the released OBR code on the golden layer: Wanda's 2:4 mask, symmetric grids without clip
# search, alpha 0.5, damping 0.01; both ways of rounding give the same. Codes or values [out, in],
# output error.
GOLDEN = {
    "4 bits": (Int(4), [[6, 0, 2, 0, -3, 0, 4, 0], [0, 5, 0, 4, 0, -6, 0, 4]], 0.890969),
    "3 bits": (Int(3), [[2, 0, 1, 0, -1, 0, 2, 0], [0, 2, 0, 2, 0, -3, 0, 2]], 1.021945),
    "floats": (
        None,
        [
            [0.721001, 0, 0.217966, 0, -0.38804, 0, 0.56535, 0],
            [0, 0.574948, 0, 0.500513, 0, -0.702083, 0, 0.482512],
        ],
        0.856407,
    ),
}


def mask_of(kernel, gram, pattern=NM(2, 4)):  # noqa: B008  # a value
    return wanda_mask(kernel, jnp.sqrt(jnp.diag(gram)), pattern)


@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
@pytest.mark.parametrize(("format", "want", "error"), GOLDEN.values(), ids=GOLDEN)
def test_golden(format, want, error, rounding):
    kernel, gram = jnp.asarray(KERNEL), jnp.asarray(GRAM)
    solved = obr(kernel, gram, mask_of(kernel, gram), format=format, rounding=rounding)
    result = solved.values if solved.codes is None else solved.codes.codes
    np.testing.assert_allclose(result.T, want, atol=1e-6)  # printed to six decimals
    assert golden_error(solved.values) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize(
    "pattern", [NM(2, 4), NM(1, 4), Unstructured(0.5), Unstructured(0.9)], ids=str
)
@pytest.mark.parametrize(
    ("format", "grid"),
    [
        (None, None),
        (Int(4), oracle.symmetric(4)),
        (Int(4, symmetric=False), oracle.asymmetric(4)),
    ],
    ids=["floats", "symmetric", "asymmetric"],
)
@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
def test_agrees_with_float64_an_output_at_a_time(format, grid, pattern, rounding):
    kernel, gram = layer(128, 24)
    mask = mask_of(kernel, gram, pattern)
    solved = obr(kernel, gram, mask, format=format, rounding=rounding)
    want = oracle.restore(
        np.asarray(kernel).T,
        np.asarray(gram),
        np.asarray(mask).T,
        grid,
        gptq=rounding == "gptq",
    )
    # float32 may decide a near-tie the other way.
    assert np.mean(~np.isclose(solved.values.T, want, rtol=1e-3, atol=1e-3)) < 0.02
    error = output_error(want.T, kernel, gram)
    assert output_error(solved.values, kernel, gram) == pytest.approx(error, rel=0.01)


def test_restoration_solves_the_system_of_every_output():
    _, gram = layer(64, 12)
    hessian = damped(np.asarray(gram), 0.01)
    rng = np.random.default_rng(0)
    rhs = rng.normal(size=(64, 12))
    keep = rng.random((64, 12)) < np.linspace(
        0, 1, 12
    )  # none of the first output, most of the last
    got = restoration(*(jnp.asarray(a, jnp.float32) for a in (hessian, rhs)), jnp.asarray(keep))
    for output in range(12):
        rows = np.flatnonzero(keep[:, output])
        want = np.zeros(64)
        want[rows] = np.linalg.solve(hessian[np.ix_(rows, rows)], rhs[rows, output])
        # float32 with a condition number below 10^4.
        np.testing.assert_allclose(got[:, output], want, rtol=1e-3, atol=1e-3)


def test_many_outputs_are_solved_in_parts_that_agree(monkeypatch):
    kernel, gram = layer(64, 12)
    mask = mask_of(kernel, gram)
    whole = obr(kernel, gram, mask, format=None).values
    monkeypatch.setitem(restoration.__globals__, "_BYTES_AT_ONCE", 5 * 4 * 32 * 32)
    parts = obr(kernel, gram, mask, format=None).values  # 5, 5 and 2 outputs
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_adding_lowers_the_loss_and_subtracting_as_the_paper_prints_it_raises_it():
    kernel, gram = layer()
    mask = mask_of(kernel, gram)
    pruned = jnp.where(mask, kernel, 0)
    change = obr(kernel, gram, mask, format=None).values - pruned
    plus, without, minus = (
        output_error(values, kernel, gram) for values in (pruned + change, pruned, pruned - change)
    )
    assert plus < without < minus


def test_no_other_values_with_the_same_mask_have_a_lower_damped_loss():
    kernel, gram = layer()
    mask = np.asarray(mask_of(kernel, gram))
    change = np.asarray(obr(kernel, gram, jnp.asarray(mask), format=None).values - kernel)
    gradient = damped(np.asarray(gram), 0.01) @ change.astype(np.float64)
    # Zero in exact arithmetic; float32 solves it to a part in 10^4 of what pruned rows show.
    assert np.abs(gradient[mask]).max() < 1e-3 * np.abs(gradient[~mask]).max()


@pytest.mark.parametrize(
    "format", [Int(4), Int(4, group=32), HBFP(4), MX("e2m1"), NVFP4()], ids=str
)
def test_making_up_for_rounding_beats_nearest_and_gptq_beats_it_again(format):
    kernel, gram = layer()
    mask = mask_of(kernel, gram)
    restored = obr(kernel, gram, mask, format=None).values
    solved = {
        rounding: obr(kernel, gram, mask, format=format, rounding=rounding)
        for rounding in ("rtn", "gptq")
    }
    errors = [output_error(s.values, kernel, gram) for s in (solved["gptq"], solved["rtn"])]
    assert errors[0] < errors[1] < output_error(format.quantize(restored), kernel, gram)
    for each in solved.values():
        np.testing.assert_array_equal(format.decode(each.codes), each.values)
        assert each.codes.scales.shape == (format.groups(256), 96)
        assert (np.asarray(each.values)[~np.asarray(mask)] == 0).all()


def test_the_first_inputs_end_where_a_group_ends():
    kernel, gram = layer(96, 8)  # three groups of 32: half of them lies inside the second
    mask = mask_of(kernel, gram)
    format = Int(4, group=32)
    restored = obr(kernel, gram, mask, format=None).values
    for alpha, rows in ((0.1, 32), (0.5, 64), (0.9, 64)):
        values = obr(kernel, gram, mask, format=format, alpha=alpha).values
        rounded = format.quantize(restored)
        np.testing.assert_array_equal(values[:rows], rounded[:rows])
        assert (np.asarray(values[rows : rows + 32]) != np.asarray(rounded[rows : rows + 32])).any()


@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
def test_dead_inputs_get_zeros(rounding):
    kernel, gram = layer(dead=(0, 5, 200))
    values = obr(kernel, gram, mask_of(kernel, gram), format=Int(4), rounding=rounding).values
    assert (np.asarray(values)[[0, 5, 200]] == 0).all()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("pattern", [None, Channel(0.5)], ids=str)
def test_other_patterns_are_refused(pattern):
    reason = OBR().why_not(Rule(path="w", pattern=pattern, weights=Int(4)))
    assert reason is not None
    assert f"the rule has the pattern {pattern}; choose gptq for none" in reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "0 < alpha < 1, got 0.0"),
        ({"alpha": 1.0}, "0 < alpha < 1, got 1.0"),
        ({"damping": 0.0}, "obr needs a finite damping > 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OBR(**settings)
