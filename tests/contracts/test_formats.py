"""What every number format must do. A new format joins by one line in `FORMATS`."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Int
from gossamer.quantization.scales import SCALE_BITS
from gossamer.recipe import Recipe, Rule

FORMATS = {  # a format and the relative error it may have on normal numbers
    # A grid of step s errs by s / sqrt(12); s is about 3 deviations / qmax.
    "int8": (Int(8), 0.01),
    "int8 per channel, e8m0 scales": (Int(8, scale="e8m0"), 0.02),  # a scale up to twice as large
    "int8 asymmetric": (Int(8, symmetric=False), 0.01),
    "int4 groups": (Int(4, group=16, scale="bfloat16"), 0.12),
    "int4 asymmetric": (Int(4, group=16, symmetric=False), 0.12),
    "int3": (Int(3, group=8, scale="e4m3"), 0.25),
    "int2": (Int(2, group=8, scale="e4m3"), 0.75),
}
KERNEL = jax.random.normal(jax.random.key(0), (64, 24))


@pytest.fixture(params=FORMATS)
def format(request):
    return FORMATS[request.param][0]


@pytest.mark.parametrize(("format", "bound"), FORMATS.values(), ids=FORMATS.keys())
def test_error_is_that_of_the_bits(format, bound):
    error = format.encode(KERNEL).decode() - KERNEL
    assert 0 < jnp.linalg.norm(error) < bound * jnp.linalg.norm(KERNEL)


def test_codes_and_scales_have_the_shapes_and_ranges_that_the_format_says(format):
    codes = format.encode(KERNEL)
    planes = (format.groups(64), 24)
    assert (codes.codes.shape, codes.codes.dtype) == ((64, 24), jnp.int8)
    assert (codes.scales.shape, codes.scales.dtype) == (planes, jnp.float32)
    assert (codes.zeros is None) == format.symmetric
    for plane in (codes.codes, codes.zeros):
        assert plane is None or format.qmin <= plane.min() <= plane.max() <= format.qmax
    assert codes.scales.min() > 0


def test_the_account_of_bits_is_that_of_the_planes(format):
    codes = format.encode(KERNEL)
    bits = codes.codes.size * format.bits + codes.scales.size * SCALE_BITS[format.scale]
    bits += 0 if codes.zeros is None else codes.zeros.size * 8
    assert format.bits_per_element(64) == bits / KERNEL.size


def test_codes_are_the_same_under_jit_and_vmap(format):
    want = format.encode(KERNEL)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(format.encode)(KERNEL), want)
    stacked = jax.vmap(format.encode)(KERNEL[None])
    jax.tree.map(lambda got, one: np.testing.assert_array_equal(got[0], one), stacked, want)


def test_codes_on_the_grid_of_a_kernel_are_those_of_encode(format):
    """What solvers that round a row at a time rely on."""
    codes = format.encode(KERNEL)
    per_group = 64 // format.groups(64)
    for row in (0, 17, 63):
        zeros = None if codes.zeros is None else codes.zeros[row // per_group]
        got = format.round(KERNEL[row], codes.scales[row // per_group], zeros)
        np.testing.assert_array_equal(got, codes.codes[row])


def test_zero_is_exact_and_a_kernel_of_zeros_too(format):
    kernel = KERNEL.at[::3].set(0.0)
    np.testing.assert_array_equal(format.encode(kernel).decode()[::3], np.zeros((22, 24)))
    np.testing.assert_array_equal(format.encode(jnp.zeros((64, 2))).decode(), np.zeros((64, 2)))


def test_each_output_is_quantized_on_its_own(format):
    loud = KERNEL.at[:, 3].multiply(1000.0)
    got, want = format.encode(loud), format.encode(KERNEL)
    others = np.arange(24) != 3
    np.testing.assert_array_equal(got.codes[:, others], want.codes[:, others])


def test_format_is_a_value(format):
    twin = copy.deepcopy(format)
    assert twin == format
    assert hash(twin) == hash(format)
    recipe = Recipe(rules=(Rule(path=".*", weights=format),))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
