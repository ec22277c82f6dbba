"""Biases of attention scores by how far apart two tokens are.

Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1; numerics follow T5 of Hugging Face
transformers.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def buckets_of_distances(
    buckets: int, max_distance: int, *, both_ways: bool
) -> Int[np.ndarray, " distances"]:
    """The bucket of every distance from 0 to `max_distance`, from which on it is the last.

    Near distances have one each; far ones share, the more the farther they are.

    Args:
        buckets: of the table.
        max_distance: tokens.
        both_ways: half of the buckets are for keys behind the query, and not counted here.

    Example:
        >>> buckets_of_distances(8, 8, both_ways=False)
        array([0, 1, 2, 3, 4, 5, 6, 7, 7], dtype=int32)

    Source: Raffel et al. 2020, section 2.1; boundaries in float32, as transformers computes them.
    """
    buckets = buckets // 2 if both_ways else buckets
    exact = buckets // 2
    distances = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(np.log(max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + ratio.astype(np.int32), buckets - 1)
    return np.where(distances < exact, distances, far).astype(np.int32)


def relative_bias(
    table: Float[Array, "buckets N"],
    queries: Int[Array, " T"],
    keys: Int[Array, " S"],
    *,
    max_distance: int,
    both_ways: bool,
) -> Float[Array, "N T S"]:
    """What is added to the scores of queries and keys at these positions.

    Args:
        table: a bias for each bucket of distances and each head.
        queries: positions.
        keys: positions.
        max_distance: see `T5Config`.
        both_ways: keys behind a query count by their own buckets; else as if at the query.
    """
    ahead = keys[None, :] - queries[:, None]
    distance = jnp.abs(ahead) if both_ways else jnp.maximum(-ahead, 0)
    known = jnp.asarray(buckets_of_distances(len(table), max_distance, both_ways=both_ways))
    bucket = known[jnp.minimum(distance, max_distance)]
    if both_ways:
        bucket = bucket + jnp.where(ahead > 0, len(table) // 2, 0)
    return jnp.moveaxis(table[bucket], -1, 0)
