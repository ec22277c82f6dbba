import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import Int, Quantized
from gossamer.weights import Weight, dot, materialize, take

KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4)


class Doubled:
    """A weight of somebody else's: all that the seam asks for."""

    shape, dtype, nbytes = (3, 4), jnp.dtype(jnp.float32), 0

    def dot(self, x):
        return x @ self.materialize()

    def take(self, indices):
        return self.materialize().T[indices]

    def materialize(self):
        return jnp.asarray(2 * KERNEL)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (5, 1, 3)])
def test_dot_sums_the_last_axis_of_x_over_the_first_of_the_kernel(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for kernel in (KERNEL, jnp.asarray(KERNEL)):
        np.testing.assert_allclose(dot(jnp.asarray(x), kernel), x @ KERNEL, rtol=1e-6)


def test_take_reads_output_columns():
    indices = jnp.array([[3, 0], [1, 1]])
    np.testing.assert_array_equal(take(KERNEL, indices), KERNEL.T[np.asarray(indices)])
    np.testing.assert_array_equal(take(KERNEL, jnp.array(2)), KERNEL[:, 2])


def test_anything_that_answers_for_itself_is_a_weight():
    weight = Doubled()
    assert isinstance(weight, Weight)
    assert not isinstance(jnp.asarray(KERNEL), Weight)
    np.testing.assert_array_equal(dot(jnp.ones(3), weight), 2 * KERNEL.sum(axis=0))
    np.testing.assert_array_equal(take(weight, jnp.array([1])), 2 * KERNEL[:, 1:2].T)
    np.testing.assert_array_equal(materialize(weight), 2 * KERNEL)


def test_materialize_leaves_arrays_as_they_are():
    np.testing.assert_array_equal(materialize(KERNEL), KERNEL)


@pytest.mark.parametrize("kernel", [KERNEL, Quantized(Int(8).encode(jnp.asarray(KERNEL)), Int(8))])
def test_dot_refuses_lengths_that_do_not_agree(kernel):
    with pytest.raises(ValueError, match=r"last axis of x .* got \(2, 4\) and \(3, 4\)"):
        dot(jnp.ones((2, 4)), kernel)
