"""Quantized products for models that are not ours, where they take a `dot_general`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gossamer.quantization import QuantAware, Scheme

Axes: TypeAlias = tuple[Sequence[int], Sequence[int]]


def quantized_dot_general(scheme: Scheme, key: jax.Array | None = None) -> Callable[..., Array]:
    """A `jax.lax.dot_general` that quantizes both operands, activations left and kernel right.

    For `dot_general=` of Flax layers. All axes that are summed count as one, `in`, all others of
    the kernel as `out`: a scale a row of the left operand, and one an output of the kernel. Batched
    products, such as those of attention, are no product with a kernel.

    Args:
        scheme: how products are quantized; `product=gossamer.packing.packed_product` is the
            fastest on a CPU.
        key: for stochastic rounding of gradients. It must be a new one at every step: make the
            function, and so the model, inside the loss.

    Raises:
        ValueError: when it is called, for a batched product or an axis that is sharded.

    Example:
        >>> from gossamer.quantization import Int
        >>> product = quantized_dot_general(Scheme(weights=Int(4), activations=Int(8)))
        >>> sums = (((1,), (0,)), ((), ()))
        >>> product(jnp.array([[127.0, 1.0]]), jnp.array([[7.0], [-3.0]]), sums)
        Array([[886.]], dtype=float32)
    """
    calls = itertools.count()  # another key for every layer

    def dot_general(
        lhs: Array,
        rhs: Array,
        dimension_numbers: tuple[Axes, Axes],
        precision: Any = None,
        preferred_element_type: Any = None,
        out_sharding: Any = None,
    ) -> Array:
        # Integers have one precision, and what is rounded is multiplied in float32.
        del precision
        if any(dimension_numbers[1]):
            raise ValueError(
                f"A batched product of {lhs.shape} and {rhs.shape} with dimension numbers "
                f"{dimension_numbers} has no kernel to quantize: give quantized_dot_general to "
                "projections only."
            )
        if out_sharding is not None:
            raise ValueError(f"quantized_dot_general takes no out_sharding, got {out_sharding!r}.")
        left, right = (
            [axis % array.ndim for axis in axes]
            for array, axes in zip((lhs, rhs), dimension_numbers[0], strict=True)
        )
        rows = [axis for axis in range(lhs.ndim) if axis not in left]
        outputs = [axis for axis in range(rhs.ndim) if axis not in right]
        size = 1
        for axis in right:
            size *= rhs.shape[axis]
        batch = tuple(lhs.shape[axis] for axis in rows)
        x = jnp.transpose(lhs, (*rows, *left)).reshape(*batch, size)
        kernel = jnp.transpose(rhs, (*right, *outputs)).reshape(size, -1)
        call_key = None if key is None else jax.random.fold_in(key, next(calls))
        y = QuantAware(kernel, scheme, call_key).dot(x)
        y = y.reshape(*batch, *(rhs.shape[axis] for axis in outputs))
        return y if preferred_element_type is None else y.astype(preferred_element_type)

    return dot_general
