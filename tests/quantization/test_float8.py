import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Float8
from gossamer.quantization.minifloat import MINIFLOATS


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
@pytest.mark.parametrize("group", [None, 128])
def test_a_million_random_values_are_those_of_casts_by_ml_dtypes(element, group):
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((1024, 1024)) * np.exp2(rng.uniform(-8, 8, (1, 1024)))).astype(
        np.float32
    )
    kind = MINIFLOATS[element]
    blocks = kernel.reshape(-1, group or 1024, 1024)
    scale = np.abs(blocks).max(axis=1, keepdims=True) * np.float32(1 / kind.largest)
    scaled = np.clip(blocks * (np.float32(1) / scale), -kind.largest, kind.largest)
    want = scaled.astype(kind.kind).astype(np.float32) * scale
    got = jax.jit(Float8(element, group).quantize)(kernel)
    np.testing.assert_array_equal(got, want.reshape(kernel.shape))


def test_the_largest_element_becomes_the_largest_number():
    codes = Float8("e4m3").encode(jnp.array([[3.0], [-1.0]]))
    assert codes.codes[0, 0] == 448


def test_an_unknown_element_is_refused():
    format = Float8("e4m3")  # type checkers see it; a user's program has none
    object.__setattr__(format, "element", "e3m4")
    with pytest.raises(ValueError, match=r"needs an element in \['e4m3', 'e5m2'\], got 'e3m4'"):
        format.__post_init__()
