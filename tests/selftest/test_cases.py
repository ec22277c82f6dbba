"""The cases are right, and none is so lenient that a wrong kernel passes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import kernels, selftest
from gossamer.nn.attention import KeyValueCache, attend
from gossamer.packing import Packed
from gossamer.quantization import Codes
from gossamer.selftest import cases as module

needs_kernels = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


@pytest.fixture(scope="module")
def cases():
    return selftest.draw_cases()


@pytest.fixture(scope="module")
def products(cases):
    return [case for case in cases if case.what != "attention"]


def changed(case, *arguments):
    """The case with other operands."""
    return dataclasses.replace(case, compute=functools.partial(case.compute.func, *arguments))


def test_every_format_is_multiplied_by_floats_and_int8_a_row_and_many_rows_at_a_time(cases):
    assert len({(case.what, case.shape) for case in cases}) == len(cases) == 49
    assert {case.what.split(", ")[0] for case in cases} == {
        "int4",
        "2:4 int4",
        "1:4 int4",
        "E2M1",
        "int8",
        "int2",
        "attention",
    }


def test_exact_products_are_those_of_the_decoded_kernels(products):
    for case in products:
        x, planes, layout = case.compute.args
        kernel = Packed(
            values=planes.values,
            indices=planes.indices,
            scales=planes.scales,
            zeros=planes.zeros,
            bits=layout.bits,
            pattern=layout.pattern,
            scale=layout.scale,
            padding=-layout.out % 16,
            book=layout.book,
        )
        rows = jnp.asarray(x)
        if layout.activations is not None:
            rows = Codes.decode(layout.activations.encode(rows.T)).T
        # Decoded inputs are rounded once more.
        want = np.asarray(rows, np.float64) @ np.asarray(kernel.materialize(), np.float64)
        assert (np.abs(want - case.exact) <= 2 * module.UNIT * case.sizes).all()


def test_exact_attention_is_that_of_plain_jax(cases):
    case = cases[-1]
    queries, keys, values = map(jnp.asarray, case.compute.args)
    tokens = [part.transpose(0, 2, 1, 3) for part in (keys, values)]
    cache = KeyValueCache.empty(
        batch_size=1, num_kv_heads=2, max_tokens=keys.shape[2], head_dim=keys.shape[3]
    )
    # All tokens at once, of which the last has the case's queries: no kernel attends.
    every = jnp.tile(queries[:, None], (1, keys.shape[2], 1, 1))
    out, _ = attend(every, *tokens, cache)
    error = np.abs(np.asarray(out[:, -1]).reshape(case.exact.shape) - case.exact)
    assert (error <= case.allowed * case.sizes).all()


@needs_kernels
def test_the_kernels_of_this_machine_are_right(cases):
    compared = selftest.compare(cases)
    assert [each for each in compared if not each.passed] == []
    assert [(each.what, each.shape) for each in compared] == [
        (case.what, case.shape) for case in cases
    ]


@needs_kernels
def test_one_wrong_code_of_a_kernel_fails(products):
    def wrong(case):
        x, planes, layout = case.compute.args
        values = planes.values.copy()
        values[0, 0] ^= 0x80  # the sign of a code
        return changed(case, x, planes._replace(values=values), layout)

    compared = selftest.compare([wrong(case) for case in products])
    assert [each for each in compared if each.passed] == []


@needs_kernels
def test_one_wrong_token_of_a_cache_fails(cases):
    queries, keys, values = cases[-1].compute.args
    other = values.copy()
    other[0, 0, 3] = 0
    [compared] = selftest.compare([changed(cases[-1], queries, keys, other)])
    assert not compared.passed


@needs_kernels
@pytest.mark.parametrize("error", [1e-3, np.nan, np.inf])
def test_a_product_with_one_wrong_output_fails(monkeypatch, products, error):
    product = module.product
    monkeypatch.setattr(
        module, "product", lambda *operands: product(*operands).at[0, -1].add(error)
    )
    compared = selftest.compare(products[:4])
    assert [each for each in compared if each.passed] == []


def test_a_case_that_no_kernel_computes_is_an_error(monkeypatch, cases):
    monkeypatch.setattr(module, "why_not", lambda *operands: "it is Sunday")
    monkeypatch.setattr(module.attention, "why_not", lambda *operands: "it is Sunday")
    with pytest.raises(RuntimeError, match="No kernel multiplies: it is Sunday"):
        selftest.compare(cases[:1])
    with pytest.raises(RuntimeError, match="No kernel attends: it is Sunday"):
        selftest.compare(cases[-1:])


def test_a_seed_gives_the_same_cases(cases):
    again, other = selftest.draw_cases(), selftest.draw_cases(seed=1)
    for case, same, different in zip(cases, again, other, strict=True):
        np.testing.assert_array_equal(case.exact, same.exact)
        assert not np.array_equal(case.exact, different.exact)
        jax.tree.map(np.testing.assert_array_equal, case.compute.args, same.compute.args)
