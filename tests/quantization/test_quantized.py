import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Int, Quantized
from gossamer.quantization.quantized import integer_dot

KERNEL = jax.random.normal(jax.random.key(0), (64, 24))
X = jax.random.normal(jax.random.key(1), (5, 64))
FORMATS = [
    Int(8),
    Int(4, group=16),
    Int(2, group=8, scale="bfloat16"),
    Int(8, symmetric=False),
    Int(4, group=16, symmetric=False),
]


def integer_dot_by_hand(x, codes, bits):
    """In exact integers and float64; x is rounded with float32 scales as everywhere."""
    groups = codes.scales.shape[0]
    steps = np.asarray(codes.codes, np.int64).reshape(groups, -1, codes.codes.shape[1])
    if codes.zeros is not None:
        steps = steps - np.asarray(codes.zeros, np.int64)[:, None, :]
    rows = []
    for row in np.asarray(x, np.float32):
        top = 2 ** (bits - 1) - 1
        scale = np.abs(row).max() * np.float32(1 / top) or np.float32(1)
        q = np.rint(row * (np.float32(1) / scale)).clip(-top, top).astype(np.int64)
        sums = np.einsum("gi,gio->go", q.reshape(groups, -1), steps)
        rows.append(float(scale) * (sums * np.asarray(codes.scales, np.float64)).sum(axis=0))
    return np.stack(rows)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_integer_product_agrees_with_exact_integers(format, bits):
    codes = format.encode(KERNEL)
    want = integer_dot_by_hand(X, codes, bits)
    got = Quantized(codes, format, Int(bits)).dot(X)
    # Only the sum over groups and two products round: a few units of 2^-24.
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6 * np.abs(want).max())


def test_integer_product_golden():
    kernel = Int(4).encode(jnp.array([[7.0, 3.5], [-7.0, 0.5], [3.0, -3.5]]))
    x = jnp.array([[127.0, 1.0, -2.4]])  # codes 127, 1, -2
    # scales 1 and 0.5: columns of codes (7, -7, 3) and (7, 1, -7)
    want = [[127 * 7 - 7 - 6, (127 * 7 + 1 + 14) * 0.5]]
    np.testing.assert_allclose(integer_dot(x, kernel, Int(8)), want, rtol=1e-6)


def test_integer_product_does_not_overflow_where_all_codes_are_extreme():
    size = 4096
    kernel = Int(8, symmetric=False).encode(jnp.ones((size, 1)))  # zero point -128, codes 127
    assert int(kernel.codes[0, 0]) - int(kernel.zeros[0, 0]) == 255
    got = integer_dot(jnp.ones((1, size)), kernel, Int(8))
    np.testing.assert_allclose(got, [[size]], rtol=1e-6)


def test_a_row_of_zeros_gives_zeros():
    weight = Quantized(Int(4).encode(KERNEL), Int(4), Int(8))
    np.testing.assert_array_equal(weight.dot(jnp.zeros((2, 64))), np.zeros((2, 24)))


def test_each_row_of_activations_has_its_own_scale():
    weight = Quantized(Int(8).encode(KERNEL), Int(8), Int(8))
    together = weight.dot(jnp.stack([X[0], 1e4 * X[1]]))
    np.testing.assert_array_equal(together[0], weight.dot(X[0]))


def test_gradient_passes_straight_through_rounded_activations():
    codes = Int(8).encode(KERNEL)
    rounded, plain = Quantized(codes, Int(8), Int(8)), Quantized(codes, Int(8))
    cotangent = jax.random.normal(jax.random.key(2), (5, 24))

    def loss(x, weight):
        return jnp.sum(cotangent * weight.dot(x))

    want = jax.grad(loss)(X, plain)
    np.testing.assert_allclose(jax.grad(loss)(X, rounded), want, rtol=1e-5, atol=1e-5)
    _, tangent = jax.jvp(rounded.dot, (X,), (X,))  # forward mode agrees
    np.testing.assert_allclose(tangent, X @ codes.decode(), rtol=1e-5, atol=1e-4)


def test_integer_product_keeps_the_dtype_of_x():
    weight = Quantized(Int(8).encode(KERNEL), Int(8), Int(8))
    x = X.astype(jnp.bfloat16)
    assert weight.dot(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        weight.dot(x), weight.dot(x.astype(jnp.float32)).astype(jnp.bfloat16)
    )


def test_nbytes_counts_a_byte_a_code_and_all_scales():
    assert Quantized(Int(4, 16).encode(KERNEL), Int(4, 16)).nbytes == 64 * 24 + 4 * 24 * 4
    asymmetric = Int(4, 16, symmetric=False)
    assert Quantized(asymmetric.encode(KERNEL), asymmetric).nbytes == 64 * 24 + 4 * 24 * (4 + 1)


@pytest.mark.parametrize("activations", [Int(8, group=16), Int(8, symmetric=False)], ids=str)
def test_activations_with_groups_or_zero_points_are_refused(activations):
    weight = Quantized(Int(8).encode(KERNEL), Int(8), activations)
    with pytest.raises(
        ValueError, match=r"symmetrically with one scale a row, got int8.*leave out"
    ):
        weight.dot(X)
