"""The two orders of pruning and rounding one kernel.

S->Q prunes, then rounds what stays; Q->S rounds, then prunes by the rounded magnitudes. Written as
functions, S->Q is q(s(x)) and Q->S is s(q(x)).

Source: Harma et al. 2024, arXiv 2405.20935, section 3. The body of the paper was not at hand; the
definitions follow its abstract, its public reviews and the authors' released code.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.quantization import Codes, Format

Order: TypeAlias = Literal["sq", "qs"]
"""`sq` sparsifies, then quantizes; `qs` quantizes, then sparsifies."""

ORDERS: tuple[Order, ...] = get_args(Order)
ARROWS: dict[Order, str] = {"sq": "S→Q", "qs": "Q→S"}
"""The orders as they are written in text."""

Choose: TypeAlias = Callable[[Float[Array, "in out"]], Bool[Array, "in out"]]
"""Marks the weights of a kernel that stay."""


class Composed(NamedTuple):
    """A kernel that was pruned and rounded; `codes` are those of `values`."""

    values: Float[Array, "in out"]
    mask: Bool[Array, "in out"]
    codes: Codes


def sparsify_then_quantize(
    kernel: Float[Array, "in out"], format: Format, choose: Choose
) -> Composed:
    """S->Q: the scales are those of the pruned kernel.

    Example:
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> x = jnp.array([[7.0], [0.6], [1.4], [0.1]])
        >>> sparsify_then_quantize(x, Int(4), lambda w: NM(2, 4).mask(abs(w), 0)).values.ravel()
        Array([7., 0., 1., 0.], dtype=float32)
    """
    mask = choose(kernel)
    codes = format.encode(jnp.where(mask, kernel, 0))
    return Composed(format.decode(codes), mask, codes)


def quantize_then_sparsify(
    kernel: Float[Array, "in out"], format: Format, choose: Choose
) -> Composed:
    """Q->S: `choose` sees the rounded kernel, whose ties may hide which weight was larger.

    Raises:
        ValueError: `format` has zero points, so that no code stands for zero.

    Example:
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> x = jnp.array([[7.0], [0.6], [1.4], [0.1]])
        >>> quantize_then_sparsify(x, Int(4), lambda w: NM(2, 4).mask(abs(w), 0)).values.ravel()
        Array([7., 1., 0., 0.], dtype=float32)
    """
    if not format.symmetric:
        raise ValueError(
            f"Weights are pruned after rounding where code 0 is the value 0, not in {format}; "
            "take a symmetric format, or prune first."
        )
    codes = format.encode(kernel)
    mask = choose(format.decode(codes))
    codes = codes.masked(mask)
    return Composed(format.decode(codes), mask, codes)


def compose(
    kernel: Float[Array, "in out"], format: Format, choose: Choose, order: Order
) -> Composed:
    """Prunes and rounds a kernel in the order named."""
    both = {"sq": sparsify_then_quantize, "qs": quantize_then_sparsify}
    return both[order](kernel, format, choose)
