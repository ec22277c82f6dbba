"""Quantization-aware products: quantized forwards, with a stated rule for the way back.

A `QuantAware` lives only inside a loss, around a plain array. What it computes forwards is what
`Quantized` and the packed kernels compute from the same weights: one quantizer, one product.

Source: the three backward rules are those of praxis, AQT and qwix, stated in `scheme`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from jaxtyping import Int as IntArray

from gossamer.quantization._pullback import pull_back, pull_back_rows
from gossamer.quantization.formats import Codes
from gossamer.quantization.integers import Int
from gossamer.quantization.products import (
    Rows,
    check_sum,
    encode_rows,
    encode_tensor,
    uniform_noise,
)
from gossamer.quantization.quantized import quantize_rows
from gossamer.quantization.scheme import (
    FloatResiduals,
    QuantizedGradients,
    Scheme,
    is_plain,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantAware:
    """A plain kernel `[in, out]` that multiplies as if it were quantized, and can be trained.

    Attributes:
        kernel: the weights, floats.
        scheme: how products are quantized (static).
        key: for stochastic rounding of gradients; a new one at every step.
        mask: True where a weight is kept after it is rounded; None keeps all. To prune before, as
            one should, give a kernel with zeros.

    Example:
        >>> kernel = jnp.array([[0.9], [-1.0], [0.4]])
        >>> weight = QuantAware(kernel, Scheme(weights=Int(4), activations=Int(8)))
        >>> x = jnp.array([[127.0, 1.0, -3.0]])
        >>> weight.dot(x)  # (6 * 127 - 7 * 1 - 3 * 3) / 7
        Array([[106.571434]], dtype=float32)
        >>> loss = lambda kernel: QuantAware(kernel, weight.scheme).dot(x).sum()
        >>> jax.grad(loss)(kernel).ravel()
        Array([127.,   1.,  -3.], dtype=float32)
    """

    kernel: Array
    scheme: Scheme = dataclasses.field(metadata={"static": True})
    key: Array | None = None
    mask: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """`(in, out)`."""
        return self.kernel.shape

    @property
    def dtype(self) -> jnp.dtype:
        """float32: what `materialize` returns."""
        return jnp.dtype(jnp.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the plain kernel: nothing is stored in fewer bits while it is trained."""
        return self.kernel.nbytes

    def materialize(self) -> Float[Array, "in out"]:
        """The rounded values, with a straight-through gradient."""
        return _rounded(self.scheme, self.kernel, self.mask)

    def dot(self, x: Float[Array, "*batch in"], /) -> Float[Array, "*batch out"]:
        """The quantized product; its gradients follow `scheme.backward`.

        Raises:
            ValueError: gradients are rounded stochastically and there is no key.
        """
        backward = self.scheme.backward
        stochastic = isinstance(backward, QuantizedGradients) and backward.rounding == "stochastic"
        if stochastic and self.key is None:
            raise ValueError(
                f"QuantAware {self.shape} rounds its gradients stochastically and has no key; give "
                "a new one at every step, or choose QuantizedGradients(rounding='nearest')."
            )
        rows = x.reshape(-1, x.shape[-1])
        key = self.key if stochastic else None
        y = _multiply(self.scheme, rows, self.kernel, self.mask, key)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def take(self, indices: IntArray[Array, "*batch"], /) -> Float[Array, "*batch in"]:
        """The output columns `indices`, rounded, one row each."""
        flat = indices.reshape(-1)
        if self.scheme.weights.tensor_scale(self.kernel) is not None:  # which all columns share
            columns = jnp.take(self.materialize(), flat, axis=1)
        else:
            mask = None if self.mask is None else jnp.take(self.mask, flat, axis=1)
            columns = _rounded(self.scheme, jnp.take(self.kernel, flat, axis=1), mask)
        return columns.T.reshape(*indices.shape, self.shape[0])


def _encode(scheme: Scheme, kernel: Array, mask: Array | None) -> Codes:
    """The kernel's codes, with those of what is pruned set to what stands for 0."""
    codes = scheme.weights.encode(kernel)
    return codes if mask is None else codes.masked(mask)


def _encode_rows(scheme: Scheme, x: Float[Array, "rows in"]) -> Rows | Array:
    """Codes of the rows, or their values where no codes are multiplied."""
    format = scheme.activations
    if format is None:
        return x.astype(jnp.float32)
    if not (isinstance(format, Int) and is_plain(format)):
        return quantize_rows(x.astype(jnp.float32), format)
    return encode_rows(x, format) if scheme.activation_scale == "row" else encode_tensor(x, format)


def _values(rows: Rows | Array) -> Float[Array, "rows in"]:
    return rows.decode() if isinstance(rows, Rows) else rows


def _round(
    scheme: Scheme, kernel: Float[Array, "in out"], mask: Bool[Array, "in out"] | None
) -> Float[Array, "in out"]:
    return _encode(scheme, kernel, mask).decode()


def _rounded_forward(
    scheme: Scheme, kernel: Array, mask: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    codes = _encode(scheme, kernel, mask)
    return codes.decode(), (kernel, mask, codes)


def _rounded_backward(
    scheme: Scheme, residuals: tuple[Any, ...], cotangent: Array
) -> tuple[Array, None]:
    kernel, mask, codes = residuals
    return pull_back(cotangent, kernel, mask, codes, scheme.weights, scheme.flowing), None


_rounded = jax.custom_vjp(_round, nondiff_argnums=(0,))
_rounded.defvjp(_rounded_forward, _rounded_backward)


def _product(
    scheme: Scheme,
    x: Float[Array, "rows in"],
    kernel: Float[Array, "in out"],
    mask: Bool[Array, "in out"] | None,
    key: Array | None,
) -> Float[Array, "rows out"]:
    return _forward(scheme, x, kernel, mask, key)[0]


def _forward(
    scheme: Scheme, x: Array, kernel: Array, mask: Array | None, key: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    codes = _encode(scheme, kernel, mask)
    rows = _encode_rows(scheme, x)
    if scheme.integers:
        assert isinstance(rows, Rows)
        y = scheme.product(rows.codes, codes) * rows.scales
    else:
        y = jnp.matmul(_values(rows), codes.decode())
    return y.astype(x.dtype), (x, kernel, mask, key, rows, codes)


def _backward(
    scheme: Scheme, residuals: tuple[Any, ...], cotangent: Float[Array, "rows out"]
) -> tuple[Array, Array, None, None]:
    x, kernel, mask, key, rows, codes = residuals
    g = cotangent.astype(jnp.float32)
    if isinstance(scheme.backward, FloatResiduals):
        kept = kernel if mask is None else jnp.where(mask, kernel, 0)
        dx = jnp.matmul(g, kept.T.astype(jnp.float32))
        dw = jnp.matmul(x.T.astype(jnp.float32), g)
        dw = dw if mask is None else jnp.where(mask, dw, 0)
        return dx.astype(x.dtype), dw.astype(kernel.dtype), None, None
    if isinstance(scheme.backward, QuantizedGradients):
        dx, dw = _integer_gradients(scheme, scheme.backward, g, rows, codes, key)
    else:
        dx = jnp.matmul(g, codes.decode().T)
        dw = jnp.matmul(_values(rows).T, g)
    dw = pull_back(dw, kernel, mask, codes, scheme.weights, scheme.flowing)
    if isinstance(rows, Rows):
        assert isinstance(scheme.activations, Int)
        dx = pull_back_rows(dx, x, rows, scheme.activations, scheme.flowing)
    return dx.astype(x.dtype), dw, None, None


_multiply = jax.custom_vjp(_product, nondiff_argnums=(0,))
_multiply.defvjp(_forward, _backward)


def _integer_gradients(
    scheme: Scheme,
    backward: QuantizedGradients,
    g: Float[Array, "rows out"],
    rows: Rows,
    codes: Codes,
    key: Array | None,
) -> tuple[Float[Array, "rows in"], Float[Array, "in out"]]:
    """Those in the rounded operands, by integers."""
    count, out = g.shape
    for summed in (count, out):
        check_sum(summed)
    noise = None if key is None else uniform_noise(key, g.shape)
    scaled = encode_rows(g * codes.scales, backward.format, noise)
    ones = jnp.ones((1, codes.codes.shape[0]))
    dx = scheme.product(scaled.codes, Codes(codes.codes.T, ones))
    if codes.zeros is not None:
        dx = dx - jnp.matmul(scaled.codes, codes.zeros.T, preferred_element_type=jnp.int32)
    dx = dx * scaled.scales
    dw = scheme.product(rows.codes.T, backward.format.encode(g * rows.scales, noise))
    return dx, dw
