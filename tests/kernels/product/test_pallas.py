"""The Pallas kernel, interpreted on the CPU: it has not run on a chip."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gossamer.kernels.product import pallas
from gossamer.kernels.product._pallas_blocks import (
    LARGEST_INPUTS,
    LARGEST_SHARES,
    block_rows,
    choose,
    column_inputs,
)
from gossamer.kernels.product._pallas_codes import place_bits
from gossamer.kernels.product._pallas_kernel import decode_scales
from gossamer.packing.groups import GROUP_SIZES, index_bits
from gossamer.quantization import Int
from gossamer.quantization.scales import scale_from_bytes
from gossamer.sparsity import NM
from tests.kernels.oracle import UNIT, exact, made
from tests.kernels.product.layouts import LAYOUTS

interpreted = jax.jit(
    functools.partial(pallas.product, interpret=True), static_argnames=("layout",)
)


def assert_right(x, packed, codes, activations):
    planes, layout = packed.parts()
    assert pallas.why_not(x, planes, layout) is None
    got = np.asarray(interpreted(x, planes, layout), np.float64)
    want, sizes = exact(x, codes, activations)
    # As `product` states it: each share is converted, scaled and added, floats term by term.
    blocks = choose(x.shape[1], codes.scales.shape[0], layout.bits, layout.pattern)
    shares = blocks.steps * blocks.groups
    bound = (shares + 3 + (x.shape[1] if activations is None else 0)) * UNIT * sizes
    if x.dtype == jnp.bfloat16:
        bound = bound + np.abs(want) / 256
    assert (np.abs(got - want) <= bound).all()


def parts_of(shape, format, pattern, activations):
    """The planes of a packed kernel, as shapes, and its layout."""
    return jax.eval_shape(lambda: made(shape, format, pattern, activations)[0]).parts()


@pytest.mark.parametrize(("format", "pattern"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_unit_vectors_read_the_kernel_bit_for_bit(format, pattern):
    packed, codes = made((128, 24), format, pattern, None)
    np.testing.assert_array_equal(interpreted(jnp.eye(128), *packed.parts()), codes.decode())


POWERS = [NM(n, m) for m in GROUP_SIZES for n in (1, 2, 4, 8) if n < m]
PATTERNS = [None, *(each for each in POWERS if place_bits(each) != 3)]


@settings(max_examples=5)
@given(st.data())
def test_any_shape_and_layout_is_exact_but_for_the_rounding_of_shares(data):
    pattern = data.draw(st.sampled_from(PATTERNS))
    group = data.draw(st.sampled_from([None, 32, 64, 96, 256]))
    size = (group or 32) * data.draw(st.integers(1, 5))
    format = Int(
        data.draw(st.sampled_from([2, 4, 8])),
        group=group,
        scale=data.draw(st.sampled_from(["float32", "bfloat16", "e8m0", "e4m3"])),
        symmetric=pattern is not None or data.draw(st.booleans()),
    )
    shape = (size, data.draw(st.integers(1, 40)))
    activations = data.draw(st.sampled_from([None, Int(8), Int(5)]))
    dtype = data.draw(st.sampled_from([jnp.float32, jnp.bfloat16]))
    x = jax.random.normal(jax.random.key(1), (data.draw(st.integers(1, 4)), size)).astype(dtype)
    try:
        parts = parts_of(shape, format, pattern, activations)
    except ValueError:  # an output's fields fill no whole bytes, or a group no pattern
        reject()
    if pallas.why_not(x, *parts) is not None:
        reject()
    packed, codes = made(shape, format, pattern, activations)
    assert_right(x, packed, codes, activations)


MANY_BLOCKS = {  # what is in several blocks, and what of it ends within one
    "rows, outputs, and inputs with whole groups": (Int(4, group=192), NM(2, 4), (2112, 528), 130),
    "inputs with parts of a group": (Int(4, group=2048), None, (4096, 8), 2),
    "inputs with one scale": (Int(8, symmetric=False), None, (1600, 8), 2),
}


@pytest.mark.parametrize(
    ("format", "pattern", "shape", "rows"), MANY_BLOCKS.values(), ids=MANY_BLOCKS.keys()
)
def test_blocks_in_every_direction_are_put_together(format, pattern, shape, rows):
    packed, codes = made(shape, format, pattern, None)
    x = jax.random.normal(jax.random.key(1), (rows, shape[0]))
    for activations in (None, Int(8)):
        kernel = dataclasses.replace(packed, activations=activations)
        assert_right(x, kernel, codes, activations)


def test_a_nan_reaches_its_row_and_no_other():
    packed, _ = made((96, 24), Int(8), None, None)  # in a block of 128
    y = interpreted(jnp.ones((3, 96)).at[1, 5].set(jnp.nan), *packed.parts())
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[jnp.array([0, 2])]).all()


def test_vmap_over_x_and_kernels_gives_each_product():
    first, _ = made((64, 24), Int(4), None, Int(8), seed=0)
    second, _ = made((64, 24), Int(4), None, Int(8), seed=1)
    x = jax.random.normal(jax.random.key(1), (2, 5, 64))
    one = functools.partial(interpreted, layout=first.parts()[1])
    want = [one(x[0], first.parts()[0]), one(x[1], second.parts()[0])]
    both = jax.tree.map(lambda *planes: jnp.stack(planes), first.parts()[0], second.parts()[0])
    np.testing.assert_array_equal(jax.vmap(one)(x, both), jnp.stack(want))


@pytest.mark.parametrize(("kind", "numbers"), [("e8m0", 255), ("e4m3", 127)])
def test_scales_of_one_byte_are_those_of_the_format(kind, numbers):
    stored = jnp.arange(1, numbers, dtype=jnp.uint8)  # of E8M0, 0 is subnormal; the last is NaN
    np.testing.assert_array_equal(decode_scales(stored, kind), scale_from_bytes(stored, kind))


def test_places_have_the_bits_that_packing_gives_them():
    patterns = [NM(n, m) for m in GROUP_SIZES for n in range(1, m)]
    assert [place_bits(each) for each in patterns] == [index_bits(each) for each in patterns]


@given(
    st.integers(1, 300),
    st.sampled_from([16, 32, 48, 64, 96, 128, 1024, 1536, 4096]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(PATTERNS),
)
def test_blocks_have_whole_columns_and_whole_groups_or_equal_parts(groups, group, bits, pattern):
    size = groups * group
    blocks = choose(size, groups, bits, pattern)
    if blocks is None:
        return
    assert blocks.inputs <= LARGEST_INPUTS
    assert block_rows(1, "bfloat16", blocks) == 1
    assert 32 <= block_rows(1000, "bfloat16", blocks) <= LARGEST_SHARES["bfloat16"] // blocks.groups
    assert [blocks.inputs % each for each in (128, *column_inputs(bits, pattern))] == [0, 0, 0]
    assert (blocks.steps - 1) * blocks.inputs < size <= blocks.steps * blocks.inputs
    if groups == 1:
        assert blocks.one_scale
    else:
        assert blocks.groups * group == blocks.inputs * blocks.steps_per_group
        assert 1 in (blocks.groups, blocks.steps_per_group)
        assert not blocks.one_scale


REFUSED = {  # of an x [2, in] of a dtype, and kernels of a shape, format, pattern and activations
    "other floats": (jnp.float16, (64, 16), Int(4), None, None, "x is float16; .* bfloat16"),
    "odd codes": (jnp.float32, (64, 16), Int(3), None, None, "3 bits; .* reads 2, 4 and 8"),
    "odd patterns": (jnp.float32, (64, 16), Int(8), NM(3, 8), None, "3:8; .* powers of two"),
    "odd places": (jnp.float32, (64, 16), Int(8), NM(1, 8), None, "1:8 have 3 bits; .* 1, 2 and 4"),
    "tails": (jnp.float32, (24, 16), Int(2), None, None, "6 bytes; .* whole words of 4"),
    "small groups": (jnp.float32, (64, 16), Int(4, 8), None, None, "8 elements; .* 16 or more"),
    "long groups": (jnp.float32, (65600, 16), Int(4), None, None, "65600 elements; .* 65536"),
    "odd groups": (
        jnp.float32,
        (400, 16),
        Int(4, 200),
        None,
        None,
        "200 elements; no block of",
    ),
    "activations in groups": (jnp.float32, (64, 16), Int(4), None, Int(8, 32), "one scale a row"),
}


@pytest.mark.parametrize(
    ("dtype", "shape", "format", "pattern", "activations", "reason"),
    REFUSED.values(),
    ids=REFUSED.keys(),
)
def test_what_it_does_not_multiply_is_refused_in_words(
    dtype, shape, format, pattern, activations, reason
):
    planes, layout = parts_of(shape, format, pattern, activations)
    found = pallas.why_not(jnp.zeros((2, shape[0]), dtype), planes, layout)
    assert found is not None
    assert re.search(reason, found), found


def test_nothing_is_refused():
    planes, layout = made((64, 16), Int(4), None, None)[0].parts()
    assert pallas.why_not(jnp.zeros((0, 64)), planes, layout) == "there is nothing to multiply"
