"""Golden counter-examples, and what holds whatever the kernel.

Source: the reference sheet of Harma et al. 2024, arXiv 2405.20935, section 4; its values were
computed with the authors' quantizer (HBFP) and with microxcaling (MX), ties to even.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import magnitude_mask, wanda_mask
from gossamer.compression.interplay import (
    FORMATS,
    lp_norm,
    order_errors,
    quantize_then_sparsify,
    sparsify_then_quantize,
)
from gossamer.quantization import Int
from gossamer.sparsity import NM

TWO_OF_FOUR = functools.partial(magnitude_mask, pattern=NM(2, 4))
BLOCK = 64  # the longest of any format; the rest of a block is zeros

GOLDEN = {  # format, x, q(x), L1 errors of Q->S, of S->Q, and of both alone together
    "int4 ties": ("INT4", [7, 0.6, 1.4, 0.1], [7, 1, 1, 0], 1.9, 1.1, 1.6),
    "hbfp4 ties": ("HBFP4", [7, 0.6, 1.4, 0.1], [7, 1, 1, 0], 1.9, 1.1, 1.6),
    "int4 control": ("INT4", [7, 1.4, 0.6, 0.1], [7, 1, 1, 0], 1.1, 1.1, 1.6),
    "int2": ("INT2", [1.0, 0.55, 0.95, 0.2], [1, 1, 1, 0], 1.6, 0.8, 1.45),
    "hbfp8": ("HBFP8", [127, 10.6, 11.4, 3], [127, 11, 11, 3], 14.8, 14.0, 14.4),
    "mxint8": ("MXINT8", [127, 10.6, 11.4, 3], [127, 11, 11, 3], 14.8, 14.0, 14.4),
    "mxfp8 e4m3": ("MXFP8-E4M3", [448, 401, 431, 10], [448, 416, 416, 10], 456, 426, 441),
    "mxfp6 e2m3": ("MXFP6-E2M3", [7.5, 6.3, 6.7, 0.5], [7.5, 6.5, 6.5, 0.5], 7.4, 7.0, 7.2),
    "mxfp4": ("MXFP4", [6, 0.76, 1.24, 0.1], [6, 1, 1, 0], 1.58, 1.1, 1.44),
    "equality of theorem 3.5": ("INT4", [7, 3.4, 1, 0], [7, 3, 1, 0], 1.4, 1.4, 1.4),
}
VIOLATING = [name for name in GOLDEN if name not in ("int4 control", "equality of theorem 3.5")]
RTOL = 2.0**-22
"""The inputs are rounded to float32, and so are products of codes and scales."""


def block(values):
    return jnp.zeros((BLOCK, 1)).at[: len(values), 0].set(jnp.array(values, jnp.float32))


def l1_norms(x, format):
    return {name: float(lp_norm(e, 1)) for name, e in x_errors(x, format)._asdict().items()}


def x_errors(x, format):
    return order_errors(block(x), FORMATS[format], TWO_OF_FOUR)


@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_errors_of_both_orders(case):
    format, x, rounded, qs, sq, total = case
    got = FORMATS[format].quantize(block(x))
    np.testing.assert_allclose(got, block(rounded), rtol=RTOL)
    norms = l1_norms(x, format)
    slack = 4 * RTOL * max(x)  # of four roundings of numbers up to the largest
    np.testing.assert_allclose(norms["qs"], qs, atol=slack)
    np.testing.assert_allclose(norms["sq"], sq, atol=slack)
    np.testing.assert_allclose(norms["quantized"] + norms["sparsified"], total, atol=slack)


@pytest.mark.parametrize("name", VIOLATING)
def test_which_of_two_ties_is_kept_decides_except_where_both_are_wrong(name):
    """Keeping the lower index of the group reversed is keeping the higher one of the group."""
    format, x, *_ = GOLDEN[name]
    norms = l1_norms(x[::-1], format)
    total = norms["quantized"] + norms["sparsified"]
    if name == "int2":
        assert norms["qs"] == pytest.approx(1.7, abs=1e-6)
        assert norms["qs"] > total
    else:
        assert norms["qs"] == pytest.approx(norms["sq"], abs=RTOL * max(x))


def test_golden_euclidean_errors():
    errors = x_errors(GOLDEN["int4 ties"][1], "INT4")
    norms = [float(lp_norm(e, 2)) for e in (errors.qs, errors.sq)]
    alone = float(lp_norm(errors.quantized, 2) + lp_norm(errors.sparsified, 2))
    np.testing.assert_allclose([*norms, alone], [1.459452, 0.728011, 1.182733], atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8)], ids=str)
def test_rounding_first_with_the_mask_of_the_unrounded_weights_is_pruning_first_bit_for_bit(
    name, pattern
):
    kernel = jax.random.normal(jax.random.key(1), (128, 48))
    mask = magnitude_mask(kernel, pattern)
    pruned_first = sparsify_then_quantize(kernel, FORMATS[name], lambda _: mask)
    rounded_first = quantize_then_sparsify(kernel, FORMATS[name], lambda _: mask)
    np.testing.assert_array_equal(pruned_first.values, rounded_first.values)


def test_under_a_mask_of_wanda_the_orders_differ_even_with_the_same_mask():
    kernel = jax.random.normal(jax.random.key(1), (128, 48))
    norm = jnp.exp(jax.random.normal(jax.random.key(2), (128,)))
    mask = wanda_mask(kernel, norm, NM(2, 4))
    pruned_first = sparsify_then_quantize(kernel, FORMATS["INT4"], lambda _: mask)
    rounded_first = quantize_then_sparsify(kernel, FORMATS["INT4"], lambda _: mask)
    assert not np.array_equal(pruned_first.values, rounded_first.values)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("both", [sparsify_then_quantize, quantize_then_sparsify])
def test_the_codes_are_those_of_the_values_and_pruned_weights_are_zero(name, both):
    kernel = jax.random.normal(jax.random.key(3), (64, 8))
    composed = both(kernel, FORMATS[name], TWO_OF_FOUR)
    np.testing.assert_array_equal(FORMATS[name].decode(composed.codes), composed.values)
    assert not np.any(np.asarray(composed.values)[~np.asarray(composed.mask)])
    assert composed.mask.reshape(16, 4, 8).sum(axis=1).max() == 2


def test_rounding_first_needs_a_code_for_zero():
    format = Int(4, symmetric=False)
    with pytest.raises(ValueError, match=r"int4 asymmetric.*take a symmetric format, or prune"):
        quantize_then_sparsify(jnp.ones((4, 1)), format, TWO_OF_FOUR)
