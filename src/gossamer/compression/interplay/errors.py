r"""Errors of pruning, of rounding and of both, on tensors and on dot products.

The error of a transformation f is :math:`e_f(x) = x - f(x)`. Two transformations are orthogonal
when composing them, in either order, adds nothing beyond the sum of their errors:
:math:`\lVert e_{g \circ f}(x) \rVert_p \le \lVert e_f(x) \rVert_p + \lVert e_g(x) \rVert_p`
for every x.

The library rounds in float32; errors and their sums are float64, so that what is measured is the
quantizer and not the measurement.

Source: Harma et al. 2024, arXiv 2405.20935, definitions 3.4 (tensors) and 3.8 (dot products),
reconstructed from the paper's reviews and the authors' released code.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from gossamer.compression.interplay.orders import (
    Choose,
    quantize_then_sparsify,
    sparsify_then_quantize,
)
from gossamer.quantization import Format


class OrderErrors(NamedTuple):
    """Errors of a kernel, element by element: of rounding, of pruning, of S->Q and of Q->S."""

    quantized: Float64[np.ndarray, "in out"]
    sparsified: Float64[np.ndarray, "in out"]
    sq: Float64[np.ndarray, "in out"]
    qs: Float64[np.ndarray, "in out"]


def order_errors(kernel: Float[Array, "in out"], format: Format, choose: Choose) -> OrderErrors:
    """Measures what rounding, pruning and both orders of them change.

    Args:
        kernel: finite values.
        format: how they are rounded.
        choose: which stay, by the values that it is given: `magnitude_mask` with a pattern.

    Example:
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> x = jnp.array([[7.0], [0.6], [1.4], [0.1]])
        >>> errors = order_errors(x, Int(4), lambda w: NM(2, 4).mask(abs(w), 0))
        >>> tuple(round(float(lp_norm(e, 1)), 4) for e in errors)
        (0.9, 0.7, 1.1, 1.9)
    """
    results = (
        format.quantize(kernel),
        jnp.where(choose(kernel), kernel, 0),
        sparsify_then_quantize(kernel, format, choose).values,
        quantize_then_sparsify(kernel, format, choose).values,
    )
    return OrderErrors(*(transformation_error(kernel, result) for result in results))


def transformation_error(
    kernel: Float[Array | np.ndarray, "*dims"], result: Float[Array | np.ndarray, "*dims"]
) -> Float64[np.ndarray, "*dims"]:
    """`x - f(x)`, in float64."""
    return np.asarray(kernel, np.float64) - np.asarray(result, np.float64)


def lp_norm(
    error: Float64[np.ndarray, "*dims"], p: int | float, axis: int | None = None
) -> Float64[np.ndarray, "*rest"]:
    """The Lp norm over an axis, or over all elements where there is none.

    Raises:
        ValueError: p is below 1, where the triangle inequality does not hold.
    """
    if p < 1:
        raise ValueError(f"An Lp norm needs p >= 1, got p={p}.")
    return np.asarray(np.sum(np.abs(error) ** p, axis=axis) ** (1 / p))


def additional_error(
    composed: Float64[np.ndarray, "*dims"],
    first: Float64[np.ndarray, "*dims"],
    second: Float64[np.ndarray, "*dims"],
    p: int | float,
    axis: int | None = None,
) -> Float64[np.ndarray, "*rest"]:
    """What a composition's error has beyond the sum of the two; orthogonality asks for <= 0."""
    return lp_norm(composed, p, axis) - lp_norm(first, p, axis) - lp_norm(second, p, axis)


def relative_error(
    kernel: Float[Array | np.ndarray, "*dims"], result: Float[Array | np.ndarray, "*dims"]
) -> float:
    """The L2 norm of the error over that of the kernel; 0 for a kernel of zeros left alone."""
    base = float(np.linalg.norm(np.asarray(kernel, np.float64)))
    error = float(np.linalg.norm(transformation_error(kernel, result)))
    return error / base if base else error


class DotErrors(NamedTuple):
    r"""Errors of dot products :math:`\langle x, w \rangle` where w is pruned and both are rounded.

    With q rounding, s pruning and c the composition S->Q of w:

    Attributes:
        quantized: of rounding both, E_qq.
        sparsified: of pruning w alone, E_Is.
        combined: of rounding both and pruning w, E_qc.
        cross: what E_qc has beyond E_qq + E_Is, with its sign.
    """

    quantized: Float64[np.ndarray, " dots"]
    sparsified: Float64[np.ndarray, " dots"]
    combined: Float64[np.ndarray, " dots"]
    cross: Float64[np.ndarray, " dots"]

    @property
    def additional(self) -> Float64[np.ndarray, " dots"]:
        """|E_qc| - |E_qq| - |E_Is|; orthogonality asks for <= 0 (definition 3.8)."""
        return np.abs(self.combined) - np.abs(self.quantized) - np.abs(self.sparsified)


def dot_errors(
    x: Float[Array, "in dots"], w: Float[Array, "in dots"], format: Format, choose: Choose
) -> DotErrors:
    r"""Measures the errors of dot products, a column of activations times one of weights.

    .. math:: t = -\sum_{i \in T} q(x_i)\, e_q(w)_i - \sum_{i \in T} e_q(x)_i\, w_i

    is the cross term, T the pruned positions: pruning takes away rounding errors that might have
    cancelled others. :math:`E_{qc} = E_{qq} + E_{Is} + t` holds exactly where pruning leaves the
    scales as they are (`why_no_guarantee` says where).

    Example:
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> x, w = jnp.array([[0.0], [7], [7], [0]]), jnp.array([[7.0], [1.4], [0.6], [0]])
        >>> found = dot_errors(x, w, Int(4), lambda w: NM(2, 4).mask(abs(w), 0))
        >>> tuple(round(float(e[0]), 5) for e in found)
        (0.0, 4.2, 7.0, 2.8)

    Source: Theorem 3.9 says that the additional error can be positive; the identity is derived.
    """
    composed = sparsify_then_quantize(w, format, choose)
    kept = np.asarray(composed.mask)
    exact_x, exact_w = (np.asarray(v, np.float64) for v in (x, w))
    q_x, q_w, q_c = (
        np.asarray(v, np.float64) for v in (format.quantize(x), format.quantize(w), composed.values)
    )
    exact = (exact_x * exact_w).sum(axis=0)
    lost = q_x * (exact_w - q_w) + (exact_x - q_x) * exact_w
    return DotErrors(
        quantized=exact - (q_x * q_w).sum(axis=0),
        sparsified=np.where(kept, 0, exact_x * exact_w).sum(axis=0),
        combined=exact - (q_x * q_c).sum(axis=0),
        cross=-np.where(kept, 0, lost).sum(axis=0),
    )
