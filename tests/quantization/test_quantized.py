import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import HBFP, MX, NVFP4, Int, Quantized
from gossamer.quantization.quantized import check_activations, integer_dot

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


def test_asymmetric_activations_are_refused():
    weight = Quantized(Int(8).encode(KERNEL), Int(8), Int(8, symmetric=False))
    with pytest.raises(ValueError, match=r"symmetrically, got int8 asymmetric.*leave out"):
        weight.dot(X)


def test_groups_that_do_not_line_up_are_refused():
    with pytest.raises(ValueError, match=r"groups of 24 .* do not line up .* groups of 16"):
        check_activations(Int(8, group=24), Int(4, group=16))


def test_an_integer_product_has_one_scale_a_row():
    with pytest.raises(ValueError, match=r"one scale a row, got int8.*leave out"):
        integer_dot(X, Int(8).encode(KERNEL), Int(8, group=16))


@pytest.mark.parametrize(
    "format", [MX("e4m3"), MX("e2m1"), NVFP4(), HBFP(8, group=16), Int(8, group=16)], ids=str
)
def test_rows_are_rounded_one_by_one_and_multiplied_by_what_the_codes_stand_for(format):
    weight = Quantized(format.encode(KERNEL), format, format)
    rows = [np.asarray(format.quantize(row[:, None]))[:, 0] for row in X.reshape(-1, X.shape[-1])]
    want = np.array(rows, np.float64) @ np.asarray(weight.materialize(), np.float64)
    size = np.abs(np.array(rows, np.float64)) @ np.abs(np.asarray(weight.materialize()))
    got = np.asarray(weight.dot(X)).reshape(want.shape)
    assert (np.abs(got - want) <= 2.0**-24 * KERNEL.shape[0] * size).all()


def test_the_derivative_of_a_rounded_product_is_straight_through():
    weight = Quantized(MX("e2m1").encode(KERNEL), MX("e2m1"), MX("e4m3"))
    got = jax.grad(lambda x: weight.dot(x).sum())(X)
    want = jnp.broadcast_to(weight.materialize().sum(1), X.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_kernels_with_a_scale_of_the_tensor_are_laid_side_by_side():
    kernels = [KERNEL, 3 * KERNEL]
    one, two = (Quantized(NVFP4().encode(kernel), NVFP4()) for kernel in kernels)
    both = one.beside([two])
    want = jnp.concatenate([one.materialize(), two.materialize()], axis=1)
    np.testing.assert_array_equal(both.materialize(), want)
    np.testing.assert_array_equal(both.take(jnp.array([1, -1])), want[:, jnp.array([1, -1])].T)
