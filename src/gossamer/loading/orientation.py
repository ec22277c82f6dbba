"""How other formats lay out weights, and how gossamer does.

They store a projection as `[out, in]`, we as `[in, out]`. Rotary embeddings turn pairs of the
outputs of query and key projections: GGUF and llama2.c pair neighbours (2i, 2i+1), Hugging Face and
gossamer pair (i, i + H/2).
"""

import numpy as np
from jaxtyping import Float

from gossamer.models import LlamaConfig


def from_neighbour_pairs(
    path: str, rows: Float[np.ndarray, "out *in"], config: LlamaConfig
) -> Float[np.ndarray, "*in out"]:
    """A weight of a format that pairs neighbours, in our orientation and order.

    Args:
        path: our name of the weight; query and key projections are reordered.
        rows: as stored: `[out, in]`, or `[out]` for a bias or a scale.
        config: says how many heads there are.
    """
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    if (module := path.split(".")[-2]) in heads:
        rows = half_split(rows, heads[module])
    return np.ascontiguousarray(rows.T)


def half_split(rows: Float[np.ndarray, "out *in"], heads: int) -> Float[np.ndarray, "out *in"]:
    """Reorders the outputs of a query or key projection from pairs (2i, 2i+1) to (i, i + H/2).

    Args:
        rows: a weight `[out, in]` or bias `[out]` with `heads` heads of H outputs.
        heads: number of heads.

    Returns:
        The same rows in another order; turned with half-split pairs they give the same scores.

    Example:
        >>> half_split(np.array([0.0, 1.0, 2.0, 3.0]), heads=1)
        array([0., 2., 1., 3.])
    """
    per_pair = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return per_pair.swapaxes(1, 2).reshape(rows.shape)
