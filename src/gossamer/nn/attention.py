"""Attention: causal with grouped queries, by one path on sequences and on a cache, and free."""

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from gossamer.kernels import attention as kernels
from gossamer.kernels.attention import CachePlanes
from gossamer.quantization import Int as Quantizer

QUERY_CHUNK = 64
"""Queries scored at once. A chunk reads only the keys before its end, which saves half of the
work, and its scores stay in the processor's cache. Tried on two
cores with the heads of SmolLM2 and 1024 tokens: 64 takes 13.6 ms, 128 14.3, 256 14.9, and an einsum
over all queries at once 93 or more."""


CacheType: TypeAlias = Literal["float32", "bfloat16", "int8"]
"""How keys and values are kept; int8 has a scale for each token and head."""

_INT8 = Quantizer(8)


if TYPE_CHECKING:
    _Length: TypeAlias = Int[Array, ""]
else:
    _Length = object  # differentiation puts what stands for an integer's derivative in its place


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the tokens that one attention layer has seen, in room for S tokens.

    Attributes:
        keys: rotated keys; only the first `length` tokens mean something.
        values: values.
        length: tokens seen.
        key_scales: what int8 keys are multiplied by; None for others.
        value_scales: the same for values.
        layer: which one of a stack this cache is, where the arrays have a leading axis of layers;
            None where they are of one layer alone.
    """

    keys: Num[Array, "*layers B K S H"]
    values: Num[Array, "*layers B K S H"]
    length: _Length
    key_scales: Float[Array, "*layers B K S"] | None = None
    value_scales: Float[Array, "*layers B K S"] | None = None
    layer: _Length | None = None

    @classmethod
    def empty(
        cls,
        *,
        batch_size: int,
        num_kv_heads: int,
        max_tokens: int,
        head_dim: int,
        dtype: CacheType = "float32",
        layers: int | None = None,
    ) -> "KeyValueCache":
        """A cache that has seen nothing; with `layers` those of a stack, for `of` to pick from."""
        lead = () if layers is None else (layers,)
        shape = (*lead, batch_size, num_kv_heads, max_tokens, head_dim)
        scaled = dtype == "int8"
        planes = CachePlanes(  # each an array of its own, so that all can be donated
            jnp.zeros(shape, dtype),
            jnp.zeros(shape, dtype),
            jnp.ones(shape[:-1]) if scaled else None,
            jnp.ones(shape[:-1]) if scaled else None,
        )
        return cls.of(planes, jnp.zeros((), jnp.int32))

    @classmethod
    def of(
        cls, planes: CachePlanes, length: Int[Array, ""], layer: Int[Array, ""] | None = None
    ) -> "KeyValueCache":
        """Puts a cache together."""
        return cls(
            planes.keys, planes.values, length, planes.key_scales, planes.value_scales, layer
        )

    @property
    def planes(self) -> CachePlanes:
        """The arrays without the length, which all layers of a model share."""
        return CachePlanes(self.keys, self.values, self.key_scales, self.value_scales)

    @property
    def max_tokens(self) -> int:
        """Tokens that there is room for."""
        return self.keys.shape[-2]

    def append(
        self, keys: Float[Array, "B K T H"], values: Float[Array, "B K T H"]
    ) -> "KeyValueCache":
        """Adds T tokens behind those seen; `length + T` must not exceed `max_tokens`.

        Raises:
            ValueError: T alone is more than `max_tokens`. `length` is not known while tracing: the
                caller counts.
        """
        if keys.shape[2] > self.max_tokens:
            raise ValueError(
                f"A cache of {self.max_tokens} tokens cannot take {keys.shape[2]}; make it longer."
            )

        def put(there: Array, new: Array) -> Array:
            start = (0, 0, self.length, 0)[: new.ndim]
            if self.layer is not None:
                start, new = (self.layer, *start), new[None]
            return lax.dynamic_update_slice(there, new, start)

        (new_keys, key_scales), (new_values, value_scales) = map(self._stored, (keys, values))
        new = CachePlanes(new_keys, new_values, key_scales, value_scales)
        added = jax.tree.map(put, self.planes, new)
        return self.of(added, self.length + keys.shape[2], self.layer)

    def decoded(self) -> tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]]:
        """Keys and values as float32."""
        planes = self.planes
        if (layer := self.layer) is not None:
            planes = jax.tree.map(
                lambda plane: lax.dynamic_index_in_dim(plane, layer, 0, keepdims=False), planes
            )
        keys, values = planes.keys.astype(jnp.float32), planes.values.astype(jnp.float32)
        if planes.key_scales is None or planes.value_scales is None:
            return keys, values
        return keys * planes.key_scales[..., None], values * planes.value_scales[..., None]

    def resized(self, max_tokens: int) -> "KeyValueCache":
        """The same tokens with room for more: prefill in a short cache, decode in a long one.

        Raises:
            ValueError: `max_tokens` is less than there is room for now.
        """
        more = max_tokens - self.max_tokens
        if more < 0:
            raise ValueError(
                f"A cache of {self.max_tokens} tokens cannot shrink to {max_tokens}; ask for more."
            )

        def pad(plane: Array, axis: int) -> Array:
            padding = [(0, 0)] * plane.ndim
            padding[axis] = (0, more)
            return jnp.pad(plane, padding)

        planes = CachePlanes(
            *(pad(numbers, -2) for numbers in (self.keys, self.values)),
            *(None if s is None else pad(s, -1) for s in (self.key_scales, self.value_scales)),
        )
        return self.of(planes, self.length, self.layer)

    def _stored(self, numbers: Float[Array, "B K T H"]) -> tuple[Array, Array | None]:
        """As this cache keeps them, and their scales."""
        if self.key_scales is None:
            return numbers.astype(self.keys.dtype), None
        codes = _INT8.encode(numbers.reshape(-1, numbers.shape[-1]).T)  # reduction axis first
        return codes.codes.T.reshape(numbers.shape), codes.scales.reshape(numbers.shape[:-1])


def attend(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    cache: KeyValueCache | None,
) -> tuple[Float[Array, "B T N*H"], KeyValueCache | None]:
    r"""Lets every query look at its own token and those before it.

    .. math:: o_t = \sum_{s \le t} \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{H}) \, v_s

    Heads n share the keys and values of head n K / N (grouped queries).

    Args:
        queries: rotated, not scaled.
        keys: of the same T tokens; N is a multiple of K.
        values: of the same T tokens.
        cache: what was seen before these tokens; None is nothing, and nothing is kept.

    Returns:
        The heads' outputs side by side, and the cache with these tokens added.
    """
    if cache is None or queries.shape[1] > 1 or kernels.why_not(queries[:, 0], cache.planes):
        return _attend(queries, keys, values, cache)
    return lax.platform_dependent(
        queries, keys, values, cache, cpu=_attend_natively, default=_attend
    )


@jax.custom_jvp
def _attend_natively(
    queries: Float[Array, "B 1 N H"],
    keys: Float[Array, "B 1 K H"],
    values: Float[Array, "B 1 K H"],
    cache: KeyValueCache,
) -> tuple[Float[Array, "B 1 N*H"], KeyValueCache]:
    """A step of decoding by a kernel that reads the filled positions only."""
    out, planes = kernels.attend(
        queries[:, 0], keys[:, 0], values[:, 0], cache.planes, cache.length, cache.layer
    )
    added = KeyValueCache.of(planes, cache.length + 1, cache.layer)
    return out.reshape(out.shape[0], 1, -1), added


@_attend_natively.defjvp
def _derivative(primals: tuple, tangents: tuple) -> tuple:
    """That of the reference, whose own value is not used and so not computed."""
    return _attend_natively(*primals), jax.jvp(_attend, primals, tangents)[1]


def _attend(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    cache: KeyValueCache | None,
) -> tuple[Float[Array, "B T N*H"], KeyValueCache | None]:
    """Attention in plain JAX."""
    batch, length, heads, head_dim = queries.shape
    kv_heads = keys.shape[2]
    keys, values = keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    start: Int[Array, ""] | int = 0
    if cache is not None:
        start, cache = cache.length, cache.append(keys, values)
        keys, values = cache.decoded()
    # Heads that share keys lie side by side, a token at a time: the rows of one product.
    scaled = queries * jnp.asarray(head_dim**-0.5, queries.dtype)
    rows = scaled.reshape(batch, length, kv_heads, -1, head_dim).transpose(0, 2, 1, 3, 4)
    out = _attend_rows(rows, keys, values, start)
    return out.transpose(0, 2, 1, 3, 4).reshape(batch, length, heads * head_dim), cache


def _attend_rows(
    queries: Float[Array, "B K T G H"],
    keys: Float[Array, "B K S H"],
    values: Float[Array, "B K S H"],
    start: Int[Array, ""] | int,
) -> Float[Array, "B K T G H"]:
    """Attention of queries from `start` on over keys from 0 on, a chunk of queries at a time."""
    batch, kv_heads, length, group, head_dim = queries.shape
    # Whatever `start` is, `start + length` fits in the room: the last queries see all of it, and
    # those that come n before the last never see its last n keys.
    room = keys.shape[2] - length
    chunks = []
    for first in range(0, length, QUERY_CHUNK):
        stop = min(first + QUERY_CHUNK, length)
        rows = queries[:, :, first:stop].reshape(batch, kv_heads, -1, head_dim)
        seen = room + stop
        # Sums of bfloat16 products, and all that softmax does, are in float32.
        scores = jnp.einsum(
            "bkqh,bksh->bkqs", rows, keys[:, :, :seen], preferred_element_type=jnp.float32
        )
        # Tokens of the rows by an iota that XLA fuses; a mask made beforehand would be read.
        token = start + first + lax.broadcasted_iota(jnp.int32, scores.shape, 2) // group
        key = lax.broadcasted_iota(jnp.int32, scores.shape, 3)
        scores = jnp.where(key <= token, scores, -jnp.inf)
        # The sum divides the output, which is smaller than the scores.
        powers = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
        seen_values = values[:, :, :seen]
        mixed = jnp.einsum(
            "bkqs,bksh->bkqh",
            powers.astype(values.dtype),
            seen_values,
            preferred_element_type=jnp.float32,
        )
        chunks.append((mixed / jnp.sum(powers, axis=-1, keepdims=True)).astype(queries.dtype))
    return jnp.concatenate(chunks, axis=2).reshape(queries.shape)


def attend_freely(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    *,
    scale: float,
    bias: Float[Array, "N T S"] | None = None,
    seen: Bool[Array, "B T S"] | None = None,
) -> Float[Array, "B T N*H"]:
    r"""Lets every query look at any key that `seen` allows, before it or behind it.

    .. math:: o_t = \sum_s \mathrm{softmax}_s(\alpha \, q_t \cdot k_s + b_{ts}) \, v_s

    Args:
        queries: not scaled.
        keys: of S tokens, the queries' own or others.
        values: of the same.
        scale: alpha.
        bias: added to the scores; None adds nothing.
        seen: whether query t may look at key s; None allows all. A query that may look at none
            takes the mean of all values.

    Returns:
        The heads' outputs side by side. Scores and sums are in float32.
    """
    scaled = queries * jnp.asarray(scale, queries.dtype)
    scores = jnp.einsum("btnh,bsnh->bnts", scaled, keys, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    if seen is not None:
        scores = jnp.where(seen[:, None], scores, jnp.finfo(jnp.float32).min)
    shares = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = jnp.einsum("bnts,bsnh->btnh", shares, values, preferred_element_type=jnp.float32)
    return mixed.astype(queries.dtype).reshape(*queries.shape[:2], -1)
