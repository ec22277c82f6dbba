"""What the solve needs to know of a kernel's inputs: the Gram matrix, and a factor of its inverse.

The Hessian of a kernel's squared output error is twice the Gram matrix of its inputs, the same for
every output. The solve is the same for any positive multiple of it, so the matrix is used as it
comes: a sum over tokens, of any number of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

RAISES = 3
"""How often damping is raised tenfold for a matrix that is not positive definite."""

_LEAF = 64  # below this size one call of LAPACK is faster than two halves


@jax.jit
def gram(x: Float[Array, "*batch in"]) -> Float[Array, "in in"]:
    r"""Sums the outer products of a kernel's inputs, :math:`X^T X`; sums over batches add up.

    Its diagonal holds the sums of squares: Wanda's input norm is the root of it.

    Example:
        >>> gram(jnp.array([[1.0, 2.0], [0.0, 3.0]]))
        Array([[ 1.,  2.],
               [ 2., 13.]], dtype=float32)
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)


def damped(gram: Float[np.ndarray, "in in"], damping: float) -> Float64[np.ndarray, "in in"]:
    r"""Scales a Gram matrix and adds to its diagonal, :math:`G / \bar g + \lambda I`, in float64.

    The mean :math:`\bar g` of the diagonal is that over live inputs, and :math:`\lambda` is
    `damping`. An input that never fires gets 1 on the diagonal.

    Raises:
        ValueError: the diagonal has a negative number, so that the matrix is no sum of squares.

    Example:
        >>> damped(np.array([[4.0, 0.0], [0.0, 0.0]]), 0.5)
        array([[1.5, 0. ],
               [0. , 1.5]])
    """
    scaled = np.array(gram, np.float64)
    diagonal = np.diagonal(scaled).copy()
    dead = diagonal == 0
    if diagonal.min(initial=0) < 0:
        raise ValueError(
            f"The Gram matrix {gram.shape} has {diagonal.min():g} on its diagonal: it is not "
            "positive definite with any damping, and no sum of x^T x."
        )
    if not dead.all():
        scaled /= diagonal[~dead].mean()
    scaled[np.diag_indices_from(scaled)] += damping + dead
    return scaled


def inverse_factor(
    gram: Float[np.ndarray, "in in"], damping: float
) -> Float64[np.ndarray, "in in"]:
    r"""The upper triangular U with :math:`U^T U = (G + \lambda I)^{-1}`, in float64.

    G is scaled and damped as `damped` does it.

    Args:
        gram: symmetric, positive semidefinite, finite.
        damping: share of the mean diagonal that is added to it, > 0; keeps the matrix invertible
            where there are fewer tokens than inputs.

    Raises:
        ValueError: the damped matrix is not positive definite.

    Source: Frantar and Alistarh 2023, arXiv 2301.00774, and its released code, which inverts
    first and factors then. Here G is factored from its last row up, :math:`G = R R^T` with R upper
    triangular, so that :math:`U = R^{-1}` and no inverse of G is formed. The released code takes
    the mean after it has set dead inputs to 1, so that its damping depends on the scale of G when
    there are any.
    """
    try:
        backwards = np.linalg.cholesky(damped(gram, damping)[::-1, ::-1])
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"The Gram matrix {gram.shape} with damping={damping:g} is not positive definite; "
            "raise the damping, and check that the matrix is a sum of x^T x."
        ) from error
    return _invert_upper(backwards[::-1, ::-1])


def raised_inverse_factor(
    gram: Float[np.ndarray, "in in"], damping: float
) -> tuple[Float64[np.ndarray, "in in"], float]:
    """`inverse_factor` with ten times the damping, and again, until the matrix gives way.

    Rounding can make the Gram matrix of very uneven inputs indefinite.

    Returns:
        The factor and the damping that it took.

    Raises:
        ValueError: the matrix is not positive definite with `damping` x 10 ^ `RAISES` either.
    """
    for _ in range(RAISES):
        try:
            return inverse_factor(gram, damping), damping
        except ValueError:
            damping *= 10
    return inverse_factor(gram, damping), damping


def _invert_upper(upper: Float64[np.ndarray, "n n"]) -> Float64[np.ndarray, "n n"]:
    """Inverts by halves, so that nearly all work is in matrix products.

    For 1536 rows on two cores 57 ms; `np.linalg.inv`, which does not know the triangle, takes 182.
    """
    size = len(upper)
    if size <= _LEAF:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    inverse = np.zeros_like(upper)
    first = inverse[:half, :half] = _invert_upper(upper[:half, :half])
    last = inverse[half:, half:] = _invert_upper(upper[half:, half:])
    inverse[:half, half:] = -(first @ upper[:half, half:]) @ last
    return inverse
