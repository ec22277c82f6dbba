"""How a target is shared among weights: the check values of JaxPruner's tests, and the total."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.sparsity import NM, Unstructured, distribute, erdos_renyi

SHAPES = {"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)}


@pytest.mark.parametrize(
    ("sparsity", "kernel", "shares"),
    [
        (0.5, True, [0, 0.30952, 0.65476]),
        (0.8, True, [0.55556, 0.70370, 0.85185]),
        (0.5, False, [0.21, 0.47, 0.56]),
    ],
)
def test_erdos_renyi_has_the_published_shares(sparsity, kernel, shares):
    found = erdos_renyi(SHAPES, sparsity, kernel=kernel)
    decimals = 5 if kernel else 2
    assert [round(found[path], decimals) for path in SHAPES] == pytest.approx(shares)


def test_a_weight_that_would_be_denser_than_dense_is_dense_exactly():
    assert erdos_renyi(SHAPES, 0.5, kernel=True)["a"] == 0


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3),
        st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.0, 0.99),
    st.booleans(),
)
def test_shares_are_fractions_and_leave_as_many_weights_as_asked(shapes, sparsity, kernel):
    shares = erdos_renyi(shapes, sparsity, kernel=kernel)
    assert all(0 <= share < 1 + 1e-9 for share in shares.values())
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    kept = sum((1 - shares[path]) * size for path, size in sizes.items())
    asked = sum(size - math.floor(sparsity * size) for size in sizes.values())
    np.testing.assert_allclose(kept, asked, rtol=1e-6)


def test_a_rule_is_the_group_that_shares_a_target_and_others_do_not_count():
    weights = {path: ("one", Unstructured(0.5), shape) for path, shape in SHAPES.items()}
    alone = distribute(weights, "erdos-renyi-kernel")
    weights |= {"d": ("two", Unstructured(0.9), (64, 64)), "e": ("three", NM(2, 4), (8, 8))}
    both = distribute(weights, "erdos-renyi-kernel")
    assert {path: both[path] for path in SHAPES} == alone
    assert both["e"] == NM(2, 4)
    assert both["d"].sparsity == pytest.approx(0.9, abs=1e-3)


def test_uniform_is_the_rules_own_sparsity_everywhere():
    weights = {path: ("one", Unstructured(0.3), shape) for path, shape in SHAPES.items()}
    assert set(distribute(weights, "uniform").values()) == {Unstructured(0.3)}
