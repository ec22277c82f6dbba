"""Products of codes by native kernels are those of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import kernels
from gossamer.kernels.product import Layout, Planes, why_not
from gossamer.packing import packed_product
from gossamer.quantization import Int, multiply_codes

ROWS = jnp.asarray(np.random.default_rng(0).integers(-127, 128, (37, 64), np.int8))
KERNEL = jax.random.normal(jax.random.key(0), (64, 40))
FORMATS = [Int(8), Int(4), Int(2, group=16), Int(8, symmetric=False), Int(4, 16, symmetric=False)]


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("rows", [1, 5, 37])
def test_kernels_multiply_codes_as_xla_does(format, rows):
    codes = format.encode(KERNEL)
    got = jax.jit(packed_product)(ROWS[:rows], codes)
    groups = codes.scales.shape[0]
    if groups == 1:
        np.testing.assert_array_equal(got, multiply_codes(ROWS[:rows], codes))
        return
    size = np.abs(np.asarray(ROWS[:rows], float)) @ np.abs(np.asarray(codes.decode(), float))
    off = np.abs(np.asarray(got) - np.asarray(multiply_codes(ROWS[:rows], codes)))
    assert (off <= 2 * (groups + 3) * 2.0**-24 * size).all()  # XLA may fuse a product and a sum


def test_kernels_multiply_codes_under_vmap():
    codes = Int(4).encode(KERNEL)
    stacked = jnp.stack([ROWS, -ROWS])
    got = jax.vmap(packed_product, in_axes=(0, None))(stacked, codes)
    np.testing.assert_array_equal(got[1], -packed_product(ROWS, codes))


def test_codes_as_floats_are_refused_by_the_kernel():
    planes = Planes(jnp.zeros((1, 256), jnp.uint8), None, jnp.ones((1, 1, 16)), None)
    layout = Layout(bits=8, pattern=None, scale="float32", out=16, activations=None)
    reason = why_not(jnp.ones((1, 16), jnp.int8), planes, layout)
    assert reason == "x holds codes, and the layout says that activations are floats"


@pytest.mark.skipif(kernels.why_unavailable() is not None, reason="there are no native kernels")
def test_codes_are_multiplied_natively_where_there_are_kernels():
    text = jax.jit(packed_product).lower(ROWS, Int(4).encode(KERNEL)).as_text()
    assert "gossamer_product" in text
