import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.hessian import RAISES, damped, gram, inverse_factor, raised_inverse_factor


def inputs(rows: int, size: int) -> np.ndarray:
    """Correlated inputs whose sizes differ by orders of magnitude, as a language model's do."""
    rng = np.random.default_rng(size)
    mixed = rng.normal(size=(rows, size)) @ rng.normal(size=(size, size)) / np.sqrt(size)
    return (mixed * np.exp(rng.normal(size=size))).astype(np.float32)


def test_gram_golden():
    np.testing.assert_array_equal(gram(jnp.array([[1.0, 2.0], [0.0, 3.0]])), [[1, 2], [2, 13]])


def test_grams_of_batches_add_up_to_that_of_all():
    x = inputs(60, 12).reshape(5, 12, 12)
    parts = sum(gram(jnp.asarray(batch)) for batch in x)
    # float32 sums of 60 products
    np.testing.assert_allclose(parts, gram(jnp.asarray(x)), rtol=1e-5, atol=1e-4)


def test_grams_diagonal_holds_the_sums_of_squares():
    x = inputs(60, 12)
    np.testing.assert_allclose(jnp.diag(gram(jnp.asarray(x))), (x**2).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 64, 65, 200])
def test_factor_is_upper_triangular_and_squares_to_the_damped_inverse(size):
    x = inputs(4 * size, size).astype(np.float64)
    g = x.T @ x
    u = inverse_factor(g, 0.01)
    assert (np.tril(u, -1) == 0).all()
    assert (np.diag(u) > 0).all()
    damped = g / np.mean(np.diag(g)) + 0.01 * np.eye(size)
    np.testing.assert_allclose(u.T @ u @ damped, np.eye(size), atol=1e-9)  # condition < 1e5


def test_factor_is_the_one_that_inverting_first_gives():
    x = inputs(400, 100).astype(np.float64)
    g = x.T @ x
    damped = g / np.mean(np.diag(g)) + 0.01 * np.eye(100)
    published = np.linalg.cholesky(np.linalg.inv(damped)).T
    np.testing.assert_allclose(inverse_factor(g, 0.01), published, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("factor", "tolerance"), [(2.0**-40, 0), (2.0**60, 0), (3.0, 1e-10)])
def test_factor_does_not_depend_on_the_scale_of_the_gram_matrix(factor, tolerance):
    x = inputs(100, 40).astype(np.float64)
    x[:, 7] = 0  # a dead input must not bring the scale back in
    g = x.T @ x
    want = inverse_factor(g, 0.01)
    np.testing.assert_allclose(inverse_factor(factor * g, 0.01), want, rtol=tolerance, atol=0)


def test_dead_input_stands_alone_with_one_on_the_diagonal():
    x = inputs(100, 6)
    x[:, 2] = 0
    u = inverse_factor(x.T @ x, 0.01)
    np.testing.assert_allclose(u[2], np.eye(6)[2] / np.sqrt(1.01), rtol=1e-12)
    np.testing.assert_array_equal(u[:2, 2], 0)


def test_inputs_that_are_all_dead_give_the_identity():
    np.testing.assert_allclose(inverse_factor(np.zeros((3, 3)), 0.01), np.eye(3) / np.sqrt(1.01))


def test_fewer_tokens_than_inputs_are_enough():
    x = inputs(5, 80)
    u = inverse_factor(x.T @ x, 0.01)
    assert np.isfinite(u).all()
    assert np.diag(u).max() <= 10.001  # 1 / sqrt(damping), in directions that never fire


def test_matrix_that_is_no_gram_matrix_is_refused():
    with pytest.raises(ValueError, match=r"Gram matrix \(2, 2\) with damping=0.01 is not positive"):
        inverse_factor(np.array([[1.0, 3.0], [3.0, 1.0]]), 0.01)


def test_a_negative_diagonal_is_refused_and_not_scaled_away():
    with pytest.raises(ValueError, match=r"\(2, 2\) has -3 on its diagonal"):
        inverse_factor(np.array([[1.0, 0.0], [0.0, -3.0]]), 0.01)


def test_damping_is_raised_tenfold_until_the_matrix_is_positive_definite():
    matrix = np.array([[1.0, 1.5], [1.5, 1.0]])  # eigenvalues 2.5 and -0.5
    factor, damping = raised_inverse_factor(matrix, 0.01)
    assert damping == pytest.approx(1.0)
    np.testing.assert_allclose(factor.T @ factor @ damped(matrix, damping), np.eye(2), atol=1e-12)
    assert raised_inverse_factor(np.eye(2), 0.01)[1] == 0.01


def test_damping_is_not_raised_for_ever():
    matrix = np.array([[1.0, 50.0], [50.0, 1.0]])
    with pytest.raises(ValueError, match=f"damping={0.01 * 10**RAISES:g} is not positive definite"):
        raised_inverse_factor(matrix, 0.01)
