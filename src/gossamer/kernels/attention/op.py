"""Which decode attention has a native kernel, and its call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gossamer.kernels import library

HEAD_SIZES = (32, 64, 80, 96, 128, 256)
MOST_QUERIES = 64
"""Heads that share keys and values, at most."""


class CachePlanes(NamedTuple):
    """The arrays of a cache: numbers `[B, K, S, H]`, and scales `[B, K, S]` where they are int8.

    With a layer beside them they have a leading axis of layers.
    """

    keys: Array
    values: Array
    key_scales: Array | None
    value_scales: Array | None


def why_not(queries: Float[Array, "B N H"], cache: CachePlanes) -> str | None:
    """Says in words why no native kernel attends over this cache; None: one does.

    Example:
        >>> numbers = jnp.zeros((1, 2, 16, 48))
        >>> why_not(jnp.zeros((1, 4, 48)), CachePlanes(numbers, numbers, None, None))
        'heads have 48 numbers; kernels know (32, 64, 80, 96, 128, 256)'
    """
    _, heads, size = queries.shape
    kv_heads = cache.keys.shape[-3]
    if queries.dtype != jnp.float32:
        return f"queries are {queries.dtype}; kernels take float32"
    if cache.keys.dtype not in (jnp.float32, jnp.bfloat16, jnp.int8):
        return f"the cache is {cache.keys.dtype}; kernels take float32, bfloat16 and int8"
    if size not in HEAD_SIZES:
        return f"heads have {size} numbers; kernels know {HEAD_SIZES}"
    if heads // kv_heads > MOST_QUERIES:
        return f"{heads // kv_heads} heads share keys; kernels know {MOST_QUERIES} at most"
    return library.missed()


def attend(
    queries: Float[Array, "B N H"],
    keys: Float[Array, "B K H"],
    values: Float[Array, "B K H"],
    cache: CachePlanes,
    length: Int[Array, ""],
    layer: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B N H"], CachePlanes]:
    """Writes the new token's key and value at `length` and attends; `why_not` has said None.

    Args:
        queries: rotated, not scaled; N is a multiple of K.
        keys: of the new token, rotated.
        values: of the new token.
        cache: updated in place where nothing else needs it, as in a program that donates it.
        length: tokens seen before; the program fails where the cache has no room for one more.
        layer: which of the layers that `cache` holds is meant; None where it holds one.

    Returns:
        The heads' outputs, and the cache.
    """
    scaled = cache.key_scales is not None
    number = jnp.int32(0) if layer is None else layer.astype(jnp.int32)
    none = jnp.zeros((*cache.keys.shape[:-2], 0))
    planes = [none if plane is None else plane for plane in cache]
    results = jax.eval_shape(_like_results, queries, keys, values, planes, length, number)
    # Operands 3 to 6 are results 1 to 4, where there is anything in them.
    shared = {operand: operand - 2 for operand in range(3, 7 if scaled else 5)}
    call = jax.ffi.ffi_call(
        library.ATTENTION,
        results,
        input_output_aliases=shared,
        vmap_method="sequential",
    )
    out, added_keys, added_values, *scales = call(queries, keys, values, *planes, length, number)
    key_scales, value_scales = scales if scaled else (None, None)
    return out, CachePlanes(added_keys, added_values, key_scales, value_scales)


def _like_results(
    queries: Array, keys: Array, values: Array, planes: list[Array], length: Array, layer: Array
) -> list[Array]:
    """Of the shapes and dtypes of the results, to be traced and not computed.

    In `shard_map` they vary over the axes that operands do.
    """
    operands = (queries, keys, values, *planes, length, layer)
    zero = 0 * sum((jnp.sum(operand) for operand in operands), start=jnp.zeros(()))
    return [array + zero.astype(array.dtype) for array in (queries, *planes)]
