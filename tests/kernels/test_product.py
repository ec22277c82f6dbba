"""The native product against exact arithmetic, through every door by which it is reached."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gossamer import kernels
from gossamer.kernels.product import Planes, product, why_not
from gossamer.packing import Packed
from gossamer.packing.pack import check_packable, pack
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, Codebook, Float8, Int
from gossamer.sparsity import NM
from tests.kernels.oracle import UNIT, exact, made

pytestmark = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


def assert_right(x, packed, codes, activations):
    assert packed.why_no_kernel(x.reshape(-1, x.shape[-1])) is None
    got = np.asarray(jax.jit(Packed.dot)(packed, x), np.float64).reshape(-1, codes.codes.shape[1])
    want, sizes = exact(x, codes, activations)
    # As `product` states it: a group's share is converted, scaled and added, floats term by term;
    # a scale of the tensor is multiplied once.
    roundings = (
        codes.scales.shape[0]
        + 3
        + (codes.tensor_scale is not None)
        + (x.shape[-1] if activations is None else 0)
    )
    bound = roundings * UNIT * sizes
    if x.dtype == jnp.bfloat16:
        bound = bound + np.abs(want) / 256
    assert (np.abs(got - want) <= bound).all()


PATTERNS = (None, NM(1, 2), NM(1, 4), NM(2, 4), NM(2, 8), NM(4, 8), NM(4, 16), NM(8, 16))


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_product_is_exact_but_for_the_rounding_of_groups(bits, pattern, activations):
    format = Int(bits, group=64, scale="bfloat16")
    packed, codes = made((256, 72), format, pattern, activations)
    for rows in (1, 3, 16, 19):  # one, a few, as many as a few, and unpacked first
        x = jax.random.normal(jax.random.key(rows), (rows, 256))
        assert_right(x, packed, codes, activations)


BOOK = Codebook((0, 127, -127, 5, -1, 90, 3, 60, 0, -8, 17, -64, 1, 2, 33, -100), group=64)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("format", [Codebook(E2M1, 32, "e8m0"), BOOK], ids=str)
def test_codes_of_a_codebook_are_multiplied_as_what_they_stand_for(format, pattern, activations):
    packed, codes = made((256, 72), format, pattern, activations)
    for rows in (1, 3, 19):
        x = jax.random.normal(jax.random.key(rows), (rows, 256))
        assert_right(x, packed, codes, activations)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("format", [MX("e2m1"), NVFP4(), HBFP(8), HBFP(4), MX("int8")], ids=str)
def test_block_formats_of_whole_numbers_and_of_4_bits_run_natively(format, pattern, activations):
    packed, codes = made((256, 72), format, pattern, activations)
    for rows in (1, 3, 19):
        x = jax.random.normal(jax.random.key(rows), (rows, 256))
        assert_right(x, packed, codes, activations)


@pytest.mark.parametrize("format", [MX("e4m3"), MX("e2m3"), Float8("e4m3")], ids=str)
def test_wider_floats_say_why_no_kernel_runs_them(format):
    packed = pack(format.encode(jnp.ones((64, 16))), format)
    assert "floats; kernels multiply integers" in packed.why_no_kernel(jnp.ones((1, 64)))
    np.testing.assert_allclose(packed.dot(jnp.ones((1, 64))), 64.0)


def test_activations_that_kernels_do_not_quantize_run_on_the_reference_path():
    packed = pack(MX("e2m1").encode(jnp.ones((64, 16))), MX("e2m1"), activations=MX("e4m3"))
    why = packed.why_no_kernel(jnp.ones((1, 64)))
    assert "activations are MXFP8 E4M3" in why
    np.testing.assert_allclose(packed.dot(jnp.ones((1, 64))), 64.0)


def test_kernels_with_scales_of_their_tensors_run_side_by_side_and_in_a_stack():
    parts = [
        pack(NVFP4().encode(scale * jax.random.normal(jax.random.key(i), (64, 32))), NVFP4())
        for i, scale in enumerate((1.0, 50.0))
    ]
    x = jax.random.normal(jax.random.key(9), (3, 64))
    want = jnp.concatenate([part.dot(x) for part in parts], axis=1)
    np.testing.assert_array_equal(parts[0].beside(parts[1:]).dot(x), want)
    stack = jax.tree.map(lambda *planes: jnp.stack(planes), *parts)
    got = [stack.at(jnp.int32(i)).dot(x) for i in range(2)]
    np.testing.assert_array_equal(jnp.concatenate(got, axis=1), want)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shape_and_format_is_exact_but_for_the_rounding_of_groups(data):
    pattern = data.draw(st.sampled_from(PATTERNS))
    bits = data.draw(st.integers(2, 8))
    group = 8 * data.draw(st.integers(2, 9)) * (2 if pattern is not None else 1)
    scale = data.draw(st.sampled_from(["float32", "bfloat16", "e8m0", "e4m3"]))
    symmetric = pattern is not None or data.draw(st.booleans())
    format = Int(bits, group=group, scale=scale, symmetric=symmetric)
    activations = data.draw(st.sampled_from([None, Int(8), Int(5)]))
    size = group * data.draw(st.integers(1, 3))
    shape = (size, data.draw(st.integers(1, 40)))
    try:
        check_packable(shape, pattern, format)
    except ValueError:  # an output's fields fill no whole bytes, or a group no pattern
        reject()
    packed, codes = made(shape, format, pattern, activations)
    dtype = data.draw(st.sampled_from([jnp.float32, jnp.bfloat16]))
    rows = data.draw(st.integers(1, 20))
    x = jax.random.normal(jax.random.key(rows), (rows, size)).astype(dtype)
    assert_right(x, packed, codes, activations)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
@pytest.mark.parametrize("x", [jnp.zeros((2, 64)), jnp.full((2, 64), 1e30), jnp.ones((2, 64))])
def test_rows_of_zeros_and_of_equal_or_huge_numbers_are_right(x, activations):
    packed, codes = made((64, 16), Int(4, group=16), NM(2, 4), activations)
    assert_right(x, packed, codes, activations)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
def test_a_nan_reaches_its_row_and_no_other(activations):
    packed, _ = made((64, 16), Int(4, group=16), NM(2, 4), activations)
    y = packed.dot(jnp.ones((3, 64)).at[1, 5].set(jnp.nan))
    assert np.isnan(y[1]).any()
    assert np.isfinite(y[jnp.array([0, 2])]).all()


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
def test_derivatives_are_those_of_the_reference(activations):
    packed, codes = made((64, 24), Int(4, group=16), NM(2, 4), activations)
    x = jax.random.normal(jax.random.key(1), (3, 64))
    gradient = jax.grad(lambda x: packed.dot(x)[0].sum())(x)
    want = np.zeros((3, 64))
    want[0] = np.asarray(codes.decode().sum(1))  # straight through the rounding of x
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-5)  # sums of 24 in other orders
    _, tangent = jax.jvp(packed.dot, (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(tangent, jnp.ones_like(x) @ codes.decode(), rtol=1e-5, atol=1e-5)


def test_vmap_over_x_and_over_kernels_gives_each_product():
    first, _ = made((64, 24), Int(4, group=16), NM(2, 4), Int(8), seed=0)
    second, _ = made((64, 24), Int(4, group=16), NM(2, 4), Int(8), seed=1)
    x = jax.random.normal(jax.random.key(1), (2, 5, 64))
    np.testing.assert_array_equal(jax.vmap(first.dot)(x), first.dot(x))
    both = jax.tree.map(lambda *planes: jnp.stack(planes), first, second)
    want = jnp.stack([first.dot(x[0]), second.dot(x[1])])
    np.testing.assert_array_equal(jax.vmap(lambda kernel, x: kernel.dot(x))(both, x), want)


@pytest.mark.parametrize("activations", [None, Int(8)], ids=["floats", "int8 activations"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_kernel_of_a_stack_multiplies_as_it_does_alone(activations, symmetric):
    pattern = NM(2, 4) if symmetric else None
    format = Int(4, group=16, symmetric=symmetric)
    alone = [made((64, 24), format, pattern, activations, seed=seed)[0] for seed in range(3)]
    stack = jax.tree.map(lambda *planes: jnp.stack(planes), *alone)
    at = jax.jit(lambda layer, x: stack.at(layer).dot(x))
    for rows in (1, 20):
        x = jax.random.normal(jax.random.key(1), (rows, 64))
        for layer, kernel in enumerate(alone):
            np.testing.assert_array_equal(at(jnp.int32(layer), x), kernel.dot(x))
    assert stack.at(jnp.int32(1)).shape == (64, 24)
    np.testing.assert_array_equal(stack.at(jnp.int32(1)).materialize(), alone[1].materialize())


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_a_stack_has_not_is_refused(layer):
    packed, _ = made((64, 24), Int(4, group=16), NM(2, 4), Int(8))
    stack = jax.tree.map(lambda plane: jnp.stack([plane, plane]), packed)
    with pytest.raises(Exception, match="no such layer"):
        stack.at(jnp.int32(layer)).dot(jnp.ones((1, 64))).block_until_ready()


def test_planes_of_another_size_are_refused_with_their_name():
    packed, _ = made((64, 24), Int(4, group=16), NM(2, 4), Int(8))
    planes, layout = packed.parts()
    short = Planes(planes.values[:, :-4], planes.indices, planes.scales, None)
    with pytest.raises(Exception, match="plane of values has another size"):
        product(jnp.ones((1, 64)), short, layout).block_until_ready()
    few = Planes(planes.values, planes.indices[:1], planes.scales, None)
    with pytest.raises(Exception, match="plane of indices has another size"):
        product(jnp.ones((1, 64)), few, layout).block_until_ready()
    other = Planes(planes.values, planes.indices, planes.scales.astype(jnp.bfloat16), None)
    with pytest.raises(Exception, match="plane of scales has another size or type"):
        product(jnp.ones((1, 64)), other, layout).block_until_ready()


@pytest.mark.parametrize(
    ("book", "bits", "message"),
    [
        ((0,) * 15, 4, "a codebook has 16 numbers"),
        ((1,) * 16, 4, "the first code of a codebook stands for 0"),
        (E2M1, 8, "only codes of 4 bits"),
    ],
)
def test_a_codebook_that_no_kernel_can_use_is_refused(book, bits, message):
    packed, _ = made((64, 24), Int(bits, group=16), None, Int(8))
    planes, layout = packed.parts()
    with pytest.raises(Exception, match=message):
        product(
            jnp.ones((1, 64)), planes, dataclasses.replace(layout, book=book)
        ).block_until_ready()


def test_what_no_kernel_multiplies_is_said_in_words():
    packed, _ = made((64, 24), Int(4, group=16), NM(2, 4), Int(8, scale="bfloat16"))
    planes, layout = packed.parts()
    assert "activations are int8, per channel, bfloat16" in why_not(
        jnp.ones((1, 64)), planes, layout
    )
    for other in (Int(8, group=16), Int(8, symmetric=False)):
        packed, _ = made((64, 24), Int(4, group=16), None, other)
        assert "activations are int8" in packed.why_no_kernel(jnp.ones((1, 64)))
    with pytest.raises(ValueError, match="quantized symmetrically"):  # by the reference too
        packed.dot(jnp.ones((1, 64)))
    assert "nothing to multiply" in why_not(jnp.ones((0, 64)), planes, layout)


SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, sys
from tests.kernels.oracle import made
from gossamer.quantization import Int
from gossamer.sparsity import NM
results = []
for pattern in (None, NM(2, 4), NM(4, 8)):
    for rows in (1, 5, 20):
        packed, _ = made((128, 40), Int(4, group=32), pattern, Int(8))
        results.append(packed.dot(jax.random.normal(jax.random.key(rows), (rows, 128))).ravel())
sys.stdout.write(np.concatenate(results).tobytes().hex())
"""


def test_every_target_of_this_machine_gives_the_same_bits():
    results = {}
    for target in kernels.targets():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "GOSSAMER_TARGET": target, "GOSSAMER_REQUIRE_KERNELS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        results[target] = done.stdout
    assert len(results) > 0
    assert len(set(results.values())) == 1, list(results)
