"""Memory that a partitioned model takes of each chip, and what fits.

Weights are divided over all chips. Keys and values are divided over sequences as far as a layout
divides them for attention, and over key-value heads as far as there are heads; the rest are copies.
The residual stream counts twice; gathered weights do not: they arrive in pieces while they are
used.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.layouts import AttentionLayout, Count, Layout, batch_chips
from gossamer.planning.meshes import Mesh
from gossamer.planning.shapes import ModelShape
from gossamer.planning.stored_weights import Weights, store_weights

CacheFormat: TypeAlias = Literal["bf16", "int8"]
ACTIVATION_BYTES = 2
CACHE_BYTES: dict[CacheFormat, int] = {"bf16": 2, "int8": 1}
"""Of an element of keys and values; the scales of int8, one for a head and token, are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes of each chip; arrays where the batch is one.

    Attributes:
        weights: of the whole model, divided evenly.
        cache: of keys and values.
        activations: of the residual stream.
    """

    weights: Count
    cache: Count
    activations: Count

    @property
    def nbytes(self) -> Count:
        """In all."""
        return self.weights + self.cache + self.activations


def cache_elements_per_chip(
    shape: ModelShape,
    mesh: Mesh,
    layout: Layout,
    attention: AttentionLayout,
    *,
    batch: Count,
    context: Count,
) -> Count:
    """Keys and values on the chip that has the most, in one layer.

    Args:
        shape: of the model.
        mesh: chips.
        layout: of the projections.
        attention: what attention is divided over.
        batch: B.
        context: S, tokens of each sequence.

    Example:
        >>> from gossamer.planning import find_shape
        >>> for attention in ("heads", "batch"):
        ...     print(cache_elements_per_chip(find_shape("palm-540b"), Mesh.of(4, 4, 4), "ws-2d",
        ...                                   attention, batch=512, context=2048))
        536870912
        8388608

    Source: Pope et al. 2022, section 3.3; uneven batches and heads are rounded up.
    """
    chips = np.asarray(batch_chips(batch, layout, attention, mesh))
    heads = -(-shape.kv_heads // (mesh.chips // chips))
    return 2 * heads * shape.head_dim * context * -(-np.asarray(batch) // chips)


def memory_use(
    shape: ModelShape,
    mesh: Mesh,
    layout: Layout,
    attention: AttentionLayout,
    *,
    batch: Count,
    context: Count,
    tokens: Count,
    weights: Weights = "bf16",
    cache: CacheFormat = "bf16",
) -> MemoryUse:
    """Bytes of each chip.

    Args:
        shape: of the model, with its padded heads.
        mesh: chips.
        layout: of the feed-forward layer and the projections.
        attention: what attention is divided over.
        batch: B; may be an array.
        context: S, tokens of each sequence at the end.
        tokens: BL of the forward pass.
        weights: bits, or a recipe.
        cache: format of keys and values.

    Example:
        >>> from gossamer.planning import find_shape
        >>> use = memory_use(find_shape("palm-540b-padded"), Mesh.of(4, 4, 4), "ws-2d", "batch",
        ...                  batch=512, context=2048, tokens=512)
        >>> print(f"{use.weights / 2**30:.1f} + {use.cache / 2**30:.1f} GiB")
        16.2 + 1.8 GiB
    """
    elements = cache_elements_per_chip(shape, mesh, layout, attention, batch=batch, context=context)
    caches = 0 if not shape.generates else 2 if shape.encoder_layers else 1  # with cross-attention
    return MemoryUse(
        weights=store_weights(shape, weights).nbytes / mesh.chips,
        cache=shape.layers * caches * CACHE_BYTES[cache] * elements,
        activations=2 * ACTIVATION_BYTES * tokens * shape.d_model / mesh.chips,
    )


def max_context(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    attention: AttentionLayout,
    *,
    batch: int,
    cache_fraction: float,
    layout: Layout = "ws-2d",
    cache: CacheFormat = "bf16",
) -> int:
    """The longest context whose keys and values take at most so much of the memory.

    Args:
        shape: of the model.
        chip: whose memory it is.
        mesh: chips.
        attention: what attention is divided over.
        batch: B.
        cache_fraction: of the memory that keys and values may take.
        layout: of the projections.
        cache: format of keys and values.

    Raises:
        ValueError: the fraction is not in (0, 1].

    Example:
        >>> from gossamer.planning import find_chip, find_shape
        >>> max_context(find_shape("palm-540b"), find_chip("tpu-v4"), Mesh.of(4, 4, 4), "batch",
        ...             batch=512, cache_fraction=0.3)
        10663

    Source: Pope et al. 2022, table 1; its figures are rounded.
    """
    if not 0 < cache_fraction <= 1:
        raise ValueError(f"cache_fraction needs to be above 0 and at most 1, got {cache_fraction}.")
    elements = cache_elements_per_chip(shape, mesh, layout, attention, batch=batch, context=1)
    per_token = shape.layers * CACHE_BYTES[cache] * float(elements)
    return int(cache_fraction * chip.memory_bytes // per_token)


def check_fits(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    layout: Layout,
    attention: AttentionLayout,
    *,
    batch: int,
    context: int,
    tokens: int,
    weights: Weights = "bf16",
    cache: CacheFormat = "bf16",
) -> None:
    """Raises where a chip's memory is too small; arguments as of `memory_use`.

    Raises:
        ValueError: it says by how much, and what would fit.
    """
    needed = functools.partial(
        memory_use, shape, mesh, layout, attention, context=context, weights=weights, cache=cache
    )
    use = needed(batch=batch, tokens=tokens)
    if use.nbytes <= chip.memory_bytes:
        return
    parts = ", ".join(
        f"{getattr(use, part) / 2**30:.1f} GiB of {part}"
        for part in ("weights", "cache", "activations")
    )
    raise ValueError(
        f"{shape.name} on {mesh.chips} {chip.name} needs {use.nbytes / 2**30:.1f} GiB of each "
        f"({parts}), {(use.nbytes - chip.memory_bytes) / 2**30:.1f} GiB more than it has. "
        + _what_fits(needed, chip, mesh, attention, batch, context, tokens)
    )


def _what_fits(
    needed: Callable[..., MemoryUse],
    chip: Chip,
    mesh: Mesh,
    attention: AttentionLayout,
    batch: int,
    context: int,
    tokens: int,
) -> str:
    use = needed(batch=batch, tokens=tokens)
    left = chip.memory_bytes - float(use.weights)
    if left <= 0:
        chips = math.floor(float(use.weights) * mesh.chips / chip.memory_bytes) + 1
        return f"The weights alone need {chips} chips or more; narrower weights need fewer."
    ways = []
    fewer = np.arange(1, batch)
    beside = needed(batch=fewer, tokens=tokens / batch * fewer)
    # A smaller batch may be divided over fewer chips, so that each has to be looked at.
    if (fitting := fewer[beside.nbytes <= chip.memory_bytes]).size:
        ways.append(f"a batch of {fitting.max()}")
    for_cache = left - float(use.activations)
    if use.cache and (shorter := int(context * for_cache / float(use.cache))) > 0:
        ways.append(f"a context of {shorter}")
    fits = f"What would fit: {' or '.join(ways)}. " if ways else ""
    by_batch = "attention divided over the batch, " if attention == "heads" and batch > 1 else ""
    less = f"{by_batch}int8 keys and values, narrower weights and more chips"
    return f"{fits}{less[0].upper()}{less[1:]} take less."
