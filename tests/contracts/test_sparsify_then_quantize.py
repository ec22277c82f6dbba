"""The order of pruning and rounding: what is proved about it, and where it is not.

Source: the reference sheet of Harma et al. 2024, arXiv 2405.20935. S->Q prunes, then rounds;
Q->S rounds, then prunes. `e_f(x) = x - f(x)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Int
from gossamer.sparsity import NM, Unstructured

GOLDEN = {  # section 4: format, x, q(x), and the L1 errors of Q->S, S->Q and ||e_q|| + ||e_s||
    "int4 ties": (Int(4), [7, 0.6, 1.4, 0.1], [7, 1, 1, 0], 1.9, 1.1, 1.6),
    "int4 control": (Int(4), [7, 1.4, 0.6, 0.1], [7, 1, 1, 0], 1.1, 1.1, 1.6),
    "int2 under any tie rule": (Int(2), [1.0, 0.55, 0.95, 0.2], [1, 1, 1, 0], 1.6, 0.8, 1.45),
    "equality of 3.5": (Int(4), [7, 3.4, 1, 0], [7, 3, 1, 0], 1.4, 1.4, 1.4),
}
RTOL = 1e-5  # float32


def quantize(x, format):
    return format.encode(x).decode()


def sparsify(x, pattern):
    return jnp.where(pattern.mask(jnp.abs(x), 0), x, 0)


def errors(x, format, pattern):
    """e of Q->S, S->Q, Q and S, float64 `[in, out]`."""
    results = (
        sparsify(quantize(x, format), pattern),
        quantize(sparsify(x, pattern), format),
        quantize(x, format),
        sparsify(x, pattern),
    )
    return [np.asarray(x, np.float64) - np.asarray(r, np.float64) for r in results]


def column(values):
    return jnp.array(values, jnp.float32)[:, None]


@pytest.mark.parametrize(
    ("format", "x", "rounded", "q_s", "s_q", "total"), GOLDEN.values(), ids=GOLDEN.keys()
)
def test_golden_errors_of_both_orders(format, x, rounded, q_s, s_q, total):
    x = column(x)
    np.testing.assert_allclose(quantize(x, format), column(rounded), rtol=RTOL)
    norms = [np.abs(e).sum() for e in errors(x, format, NM(2, 4))]
    np.testing.assert_allclose(norms[0], q_s, rtol=RTOL)
    np.testing.assert_allclose(norms[1], s_q, rtol=RTOL)
    np.testing.assert_allclose(norms[2] + norms[3], total, rtol=RTOL)


def test_golden_euclidean_errors_of_the_first_row():
    q_s, s_q, q, s = (
        np.linalg.norm(e) for e in errors(column(GOLDEN["int4 ties"][1]), Int(4), NM(2, 4))
    )
    np.testing.assert_allclose([q_s, s_q, q + s], [1.459452, 0.728011, 1.182733], rtol=RTOL)


def random_blocks():
    """Blocks of 8 with one scale; every other one is coarse so that ties are common."""
    x = np.random.default_rng(0).normal(size=(8, 20_000)).astype(np.float32)
    x[:, ::2] = np.round(x[:, ::2] * 4) / 4
    return jnp.asarray(x)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8)], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_what_is_proved_about_the_orders_holds_for_random_blocks(bits, pattern):
    x = random_blocks()
    q_s, s_q, q, s = errors(x, Int(bits), pattern)
    slack = RTOL * np.abs(np.asarray(x, np.float64)).sum(axis=0)
    for p in (1, 2, 4):
        n_q_s, n_s_q, n_q, n_s = (np.linalg.norm(e, ord=p, axis=0) for e in (q_s, s_q, q, s))
        assert np.all(n_s_q <= n_q + n_s + slack)  # 3.5
        assert np.all(n_s_q <= n_q_s + slack)  # 3.2 (3)
    extra = np.abs(q_s).sum(axis=0) - np.abs(q).sum(axis=0) - np.abs(s).sum(axis=0)
    magnitudes, rounded = np.abs(np.asarray(x)), np.abs(np.asarray(quantize(x, Int(bits))))
    before, after = (np.asarray(pattern.mask(jnp.asarray(m), 0)) for m in (magnitudes, rounded))
    bound = np.where(after & ~before, np.maximum(rounded - magnitudes, 0), 0).sum(axis=0)
    assert np.all(extra <= bound + slack)  # 3.2 (2)
    assert np.any(extra > slack) or bits == 8  # 3.6: Q->S does add error


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_first_with_the_mask_of_the_unrounded_weights_is_the_same_bit_for_bit(bits):
    kernel = jax.random.normal(jax.random.key(1), (64, 32))
    mask = NM(2, 4).mask(jnp.abs(kernel), 0)
    format = Int(bits, group=16)
    np.testing.assert_array_equal(
        jnp.where(mask, quantize(kernel, format), 0), quantize(jnp.where(mask, kernel, 0), format)
    )


def test_a_mask_that_drops_the_largest_weight_changes_the_scale():
    """Section 3.3: with such a mask the error of S->Q can exceed the sum."""
    x, mask = column([7, 3, 1, 1]), np.array([0, 1, 1, 0], bool)[:, None]
    got = quantize(jnp.where(mask, x, 0), Int(4))
    np.testing.assert_allclose(got, column([0, 3, 0.857143, 0]), rtol=RTOL)
    np.testing.assert_array_equal(quantize(x, Int(4)), x)
    assert np.abs(np.asarray(x - got)).sum() > 8.14  # ||e_q|| + ||e_s|| = 0 + 8


def test_a_sparsity_group_of_several_scales_can_gain_from_rounding_first():
    """Section 3.3: nothing is claimed where a group of M has more than one scale."""
    x, format, half = column([100, 6, 5, 4]), Int(4, group=2), Unstructured(0.5)
    np.testing.assert_allclose(quantize(x, format), column([100, 0, 5, 4.285714]), rtol=RTOL)
    q_s, s_q, _, _ = (np.abs(e).sum() for e in errors(x, format, half))
    np.testing.assert_allclose([s_q, q_s], [15, 10], rtol=RTOL)


def test_the_dot_product_can_lose_more_than_the_sum_even_in_the_better_order():
    """Section 4.1, and its identity E_qc(x, w) = E_qq(x, s(w)) + E_Is(x, w)."""
    x, w = column([0, 7, 7, 0]), column([7, 1.4, 0.6, 0])
    pruned = sparsify(w, NM(2, 4))
    exact = float((x * w).sum())
    q_x = quantize(x, Int(4))
    e_qq = exact - float((q_x * quantize(w, Int(4))).sum())
    e_is = exact - float((x * pruned).sum())
    e_qc = exact - float((q_x * quantize(pruned, Int(4))).sum())
    np.testing.assert_allclose([e_qq, e_is, e_qc], [0, 4.2, 7.0], atol=1e-5)
    e_qq_pruned = float((x * pruned).sum()) - float((q_x * quantize(pruned, Int(4))).sum())
    np.testing.assert_allclose(e_qc, e_qq_pruned + e_is, atol=1e-5)


SIZES = {  # section 7: relative errors: dense, 2:4 S->Q, 2:4 Q->S, masks that differ, 50 % likewise
    8: (0.00782, 0.36385, 0.36391, 0.008, 0.26724, 0.26728),
    2: (0.86583, 0.86637, 0.86725, 0.434, 0.86583, 0.86583),
}


@pytest.mark.parametrize(("bits", "want"), SIZES.items())
def test_size_of_the_order_effect_on_a_normal_kernel(bits, want):
    rows = np.random.default_rng(1234).standard_normal((1024, 1024)).astype(np.float32)
    kernel = jnp.asarray(rows.T)  # the sheet's rows are outputs
    sparse = {}
    for pattern in (NM(2, 4), Unstructured(0.5)):
        found = errors(kernel, Int(bits), pattern)
        sparse[pattern] = [np.linalg.norm(e) / np.linalg.norm(rows) for e in found]
    rounded = jnp.abs(quantize(kernel, Int(bits)))
    differ = (NM(2, 4).mask(jnp.abs(kernel), 0) != NM(2, 4).mask(rounded, 0)).mean()
    q_s, s_q, q, s = sparse[NM(2, 4)]
    half_q_s, half_s_q, _, half_s = sparse[Unstructured(0.5)]
    np.testing.assert_allclose([s, half_s], [0.36381, 0.26718], rtol=1e-4)
    np.testing.assert_allclose([q, s_q, q_s], want[:3], rtol=1e-3)
    np.testing.assert_allclose([half_s_q, half_q_s], want[4:], rtol=1e-4)
    np.testing.assert_allclose(differ, want[3], atol=0.001)
    assert s_q < q_s
