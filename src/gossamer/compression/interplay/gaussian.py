"""Relative errors of every format on a normal kernel: alone, and in both orders.

No model and no data: the table shows how large the effect of the order on weights can be expected
to be, before anything is said about a model.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gossamer.compression.interplay.catalogue import FORMATS, PATTERNS
from gossamer.compression.interplay.errors import relative_error
from gossamer.compression.interplay.orders import ORDERS, compose
from gossamer.compression.methods import magnitude_mask

SEED, SIZE = 1234, 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianRow:
    """Relative L2 errors of one format on the normal kernel.

    Attributes:
        format: its name.
        dense: of rounding alone.
        nm_sq: of 2:4, S->Q.
        nm_qs: of 2:4, Q->S.
        unstructured_sq: of 50 % unstructured over the kernel, S->Q.
        unstructured_qs: of 50 % unstructured over the kernel, Q->S.
    """

    format: str
    dense: float
    nm_sq: float
    nm_qs: float
    unstructured_sq: float
    unstructured_qs: float


def gaussian_table(
    formats: Iterable[str], advance: Callable[[], None] = lambda: None
) -> list[GaussianRow]:
    """Measures formats on 1024 x 1024 standard normal numbers, pruned by magnitude.

    Args:
        formats: names in `FORMATS`.
        advance: called after each.

    Example:
        >>> row, = gaussian_table(["INT8"])
        >>> f"{row.dense:.3g}"
        '0.00782'

    Source: the kernel is `default_rng(1234).standard_normal((1024, 1024))` in float32, rows being
    outputs; blocks and groups run along inputs.
    """
    rows = np.random.default_rng(SEED).standard_normal((SIZE, SIZE)).astype(np.float32)
    kernel = jnp.asarray(rows.T)
    table = []
    for name in formats:
        format = FORMATS[name]
        errors = {"dense": relative_error(kernel, format.quantize(kernel))}
        for kind, choose in (("nm", _two_of_four), ("unstructured", _half)):
            for order in ORDERS:
                values = compose(kernel, format, choose, order).values
                errors[f"{kind}_{order}"] = relative_error(kernel, values)
        table.append(GaussianRow(format=name, **errors))
        advance()
    return table


def _two_of_four(kernel: Float[Array, "in out"]) -> Bool[Array, "in out"]:
    return magnitude_mask(kernel, PATTERNS["2:4"])


def _half(kernel: Float[Array, "in out"]) -> Bool[Array, "in out"]:
    # Of ties the first in the array as it was drawn, [out, in]: with 4 bits so many weights tie
    # that their order decides the fourth digit.
    return magnitude_mask(kernel.T, PATTERNS["50%"]).T
