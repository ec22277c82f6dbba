"""What is proved about the orders, held against 100,000 blocks a case, and where it is not true.

Quantizers run as they are, in float32; errors and norms are float64, where differences of float32
numbers are exact and a sum of eight is right to about 1e-15. Rounding itself is monotone and the
same for equal inputs whatever is lost in it, so that no theorem needs slack for it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import magnitude_mask
from gossamer.compression.interplay import (
    additional_error,
    lp_norm,
    order_errors,
    quantize_then_sparsify,
    sparsify_then_quantize,
    step_bound,
    swap_bound,
    transformation_error,
    why_no_guarantee,
)
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, ClipSearch, Codebook, Float8, Int
from gossamer.sparsity import NM, Unstructured

BLOCK, BLOCKS = 8, 100_000
PATTERNS = [NM(2, 4), NM(1, 4), NM(4, 8)]
FORMATS = [
    *(Int(bits) for bits in (2, 3, 4, 8)),
    *(HBFP(bits, group=BLOCK) for bits in (4, 6, 8)),
    *(MX(element, group=BLOCK) for element in ("e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8")),
    NVFP4(group=BLOCK),
    Codebook(E2M1),
    Float8("e4m3"),
]
RTOL = 1e-12


@functools.cache
def blocks():
    """Normal, coarse so that ties are common, and with outliers; a block a column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BLOCK, BLOCKS)).astype(np.float32)
    x[:, ::3] = np.round(x[:, ::3] * 4) / 4
    x[:, 1::3] = np.sign(x[:, 1::3]) * np.exp(2 * x[:, 1::3])
    return jnp.asarray(x)


def by_magnitude(pattern):
    return functools.partial(magnitude_mask, pattern=pattern)


@functools.cache
def measured(format, pattern):
    return order_errors(blocks(), format, by_magnitude(pattern))


every_case = pytest.mark.parametrize(
    ("format", "pattern"), [(f, p) for f in FORMATS for p in PATTERNS], ids=str
)


@every_case
def test_pruning_first_adds_nothing_and_never_loses(format, pattern):
    assert why_no_guarantee(pattern, format) is None
    errors = measured(format, pattern)
    for p in (1, 2, 4):
        qs, sq, q, s = (
            lp_norm(e, p, axis=0)
            for e in (errors.qs, errors.sq, errors.quantized, errors.sparsified)
        )
        assert np.all(sq <= (q + s) * (1 + RTOL))  # theorem 3.5
        assert np.all(sq <= qs * (1 + RTOL))
        np.testing.assert_allclose(
            additional_error(errors.qs, errors.quantized, errors.sparsified, p, axis=0), qs - q - s
        )


@every_case
def test_what_rounding_first_adds_is_bounded_by_what_wrongly_kept_weights_grew(format, pattern):
    errors = measured(format, pattern)
    extra = additional_error(errors.qs, errors.quantized, errors.sparsified, 1, axis=0)
    rounded = format.quantize(blocks())
    keep, keep_rounded = (magnitude_mask(each, pattern) for each in (blocks(), rounded))
    bound = swap_bound(blocks(), rounded, keep, keep_rounded)
    size = np.abs(np.asarray(blocks(), np.float64)).sum(axis=0)
    assert np.all(extra <= bound + RTOL * size)
    assert np.all(bound <= widest_step_bound(format, keep, keep_rounded))
    if format != Int(8):  # there ties of a hundred thousand blocks are none or few
        assert np.any(extra > 0)  # theorem 3.6


def widest_step_bound(format, keep, keep_rounded):
    """`step_bound` for each block, and what float32 loses in a quotient and a product."""
    codes = format.encode(blocks())
    unit = codes.scales if codes.tensor_scale is None else codes.scales * codes.tensor_scale
    steps = np.asarray(unit, np.float64)[0] * format.widest_step
    swaps = np.asarray(keep_rounded & ~keep).sum(axis=0)
    slack = 2.0**-21 * np.abs(np.asarray(blocks(), np.float64)).max(axis=0)
    return step_bound(swaps, steps) + swaps * slack


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("format", [Int(4), Int(2), MX("e2m1", group=BLOCK), NVFP4(group=BLOCK)])
def test_the_bound_holds_for_stochastic_rounding_with_a_whole_step(format, pattern):
    x = blocks()
    rounded = format.quantize(x, jax.random.key(5))
    keep, keep_rounded = (magnitude_mask(each, pattern) for each in (x, rounded))
    results = (jnp.where(keep_rounded, rounded, 0), rounded, jnp.where(keep, x, 0))
    extra = additional_error(*(transformation_error(x, result) for result in results), 1, axis=0)
    bound = swap_bound(x, rounded, keep, keep_rounded)
    size = np.abs(np.asarray(x, np.float64)).sum(axis=0)
    assert np.all(extra <= bound + RTOL * size)
    half = widest_step_bound(format, keep, keep_rounded)
    assert np.all(bound <= 2 * half)
    assert np.any(bound > half)  # half a step would not do


def test_steps_of_stochastic_rounding_are_whole():
    swaps, step = np.array([0, 3]), np.array([0.5])
    np.testing.assert_array_equal(step_bound(swaps, step), [0, 0.75])
    np.testing.assert_array_equal(step_bound(swaps, step, stochastic=True), [0, 1.5])


def column(values):
    return jnp.array(values, jnp.float32)[:, None]


def l1(x, result):
    return float(np.abs(transformation_error(x, result)).sum())


def test_a_place_that_weights_of_several_scales_compete_for_can_gain_from_rounding_first():
    x, format, half = column([100, 6, 5, 4]), Int(4, group=2), by_magnitude(Unstructured(0.5))
    np.testing.assert_allclose(format.quantize(x), column([100, 0, 5, 4.285714]), rtol=1e-6)
    assert l1(x, sparsify_then_quantize(x, format, half).values) == pytest.approx(15, rel=1e-6)
    assert l1(x, quantize_then_sparsify(x, format, half).values) == pytest.approx(10, rel=1e-6)
    assert "different scales compete" in why_no_guarantee(Unstructured(0.5), format)


def test_a_group_of_weights_over_the_end_of_a_scale_is_promised_nothing():
    assert "groups of 4 run over the ends of 6" in why_no_guarantee(NM(2, 4), Int(4, group=6))
    x, format, two = column([100, 6, 5, 4]), Int(4, group=2), by_magnitude(NM(2, 4))
    pruned_first = l1(x, sparsify_then_quantize(x, format, two).values)
    assert pruned_first > l1(x, quantize_then_sparsify(x, format, two).values)
    assert why_no_guarantee(NM(2, 4), format) is not None


def test_a_mask_that_drops_the_largest_weight_can_lose_more_than_the_sum():
    x, mask = column([7, 3, 1, 1]), column([0, 1, 1, 0]) > 0
    np.testing.assert_array_equal(Int(4).quantize(x), x)
    composed = sparsify_then_quantize(x, Int(4), lambda _: mask).values
    np.testing.assert_allclose(composed, column([0, 3, 0.857143, 0]), rtol=1e-6)
    assert l1(x, jnp.where(mask, x, 0)) == 8
    assert l1(x, composed) == pytest.approx(8.142857, rel=1e-6)
    assert "not by magnitude" in why_no_guarantee(NM(2, 4), Int(4), by_magnitude=False)


def test_a_scale_that_shrinks_with_the_mask_mostly_helps():
    x, mask = column([7, 1.4, 0.6, 0.1]), column([0, 1, 1, 0]) > 0
    composed = sparsify_then_quantize(x, Int(4), lambda _: mask)
    np.testing.assert_allclose(composed.codes.scales, [[0.2]], rtol=1e-6)
    np.testing.assert_allclose(composed.values, jnp.where(mask, x, 0), rtol=1e-6)


def test_stochastic_rounding_can_gain_from_rounding_first():
    x, noise = column([7, 1.9, 1.8, 0]), column([0, 0.05, 0.5, 0])  # 1.9 goes to 1, 1.8 to 2
    rounded = Int(4).quantize(x, noise)
    np.testing.assert_allclose(rounded, column([7, 1, 2, 0]), rtol=1e-6)
    two = by_magnitude(NM(2, 4))
    pruned_first = Int(4).quantize(jnp.where(two(x), x, 0), noise)
    assert l1(x, pruned_first) == pytest.approx(2.7, rel=1e-6)
    assert l1(x, jnp.where(two(rounded), rounded, 0)) == pytest.approx(2.1, rel=1e-6)


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        (Int(4, symmetric=False), "two sides differ"),
        (Codebook((0, 1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7)), "two sides differ"),
        (Int(4, clip=ClipSearch()), "a searched clip depends on all weights"),
    ],
    ids=str,
)
def test_formats_whose_scale_is_not_that_of_the_largest_weight_are_promised_nothing(format, reason):
    assert reason in why_no_guarantee(NM(2, 4), format)
    kernel = jax.random.normal(jax.random.key(0), (64, 2000))
    two = by_magnitude(NM(2, 4))
    pruned = jnp.where(two(kernel), kernel, 0)
    assert np.any(format.encode(kernel).scales != format.encode(pruned).scales)
