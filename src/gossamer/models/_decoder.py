"""What all decoders share: blocks with their norms in front, and the way through them."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, overload, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.models._model import Block, Flow, Model, Sublayer
from gossamer.nn.attention import CacheType, KeyValueCache
from gossamer.nn.linear import Embedding, Linear
from gossamer.nn.norms import LayerNorm, RMSNorm

Cache = list[KeyValueCache]
"""One for each block, in order."""


@runtime_checkable
class Sizes(Protocol):
    """What a decoder asks of its family's config."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def max_positions(self) -> int: ...


class DecoderBlock(Block):
    """Attention, then a feed-forward layer, each on normalized input and added to the stream.

    A family's block sets the four layers; their names are those of its parameters.
    """

    attention_norm: nnx.Module
    attention: nnx.Module
    mlp_norm: nnx.Module
    mlp: nnx.Module

    def __init__(self, config: Sizes, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

    def through(self, flow: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Puts whole sequences through, positions from 0."""
        return self(flow, jnp.arange(flow.shape[1]))[0]

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B T D"], flow: Flow
    ) -> Float[Array, "B T D"]:
        """What one of the two layers makes of whole sequences of normalized input."""
        del flow
        if which == "attention":
            return self.attention(x, jnp.arange(x.shape[1]), None)[0]
        return self.mlp(x)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, " T"],
        cache: KeyValueCache | None = None,
    ) -> tuple[Float[Array, "B T D"], KeyValueCache | None]:
        """Puts T tokens through; `cache` holds those before them and comes back with them added."""
        mixed, cache = self.attention(self.attention_norm(x), positions, cache)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


class Decoder(Model):
    """A language model: tokens in, scores of the next token out.

    Attributes:
        embedding: token vectors.
        layers: the blocks.
        norm: in front of the output.
        output: None where the embedding is the output projection too (tied).
    """

    BLOCK: ClassVar[type[DecoderBlock]]

    embedding: Embedding
    layers: nnx.List
    norm: RMSNorm | LayerNorm
    output: Linear | None
    config: Sizes

    @classmethod
    def block_class(cls, path: str) -> type[Block]:
        """All blocks are of one class."""
        del path
        return cls.BLOCK

    def set_blocks(self, blocks: Sequence[Block]) -> None:
        """Takes all blocks, in order."""
        self.layers = nnx.List(blocks)

    def begin(self, inputs: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """The hidden states of whole sequences that enter the first block."""
        return self.embed(inputs, jnp.arange(inputs.shape[1]))

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, " T"]
    ) -> Float[Array, "B T D"]:
        """The hidden states that enter the first block."""
        raise NotImplementedError

    def empty_cache(self, batch_size: int, max_tokens: int, dtype: CacheType = "float32") -> Cache:
        """Room for `max_tokens` tokens of `batch_size` sequences."""
        sizes = {"num_kv_heads": self.config.num_kv_heads, "head_dim": self.config.head_dim}
        return [
            KeyValueCache.empty(batch_size=batch_size, max_tokens=max_tokens, dtype=dtype, **sizes)
            for _ in range(self.config.num_layers)
        ]

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Scores of every next token, from the hidden states that leave the last block."""
        x = self.norm(x)
        return self.embedding.logits(x) if self.output is None else self.output(x)

    @overload
    def __call__(self, tokens: Int[Array, "B T"], cache: None = None) -> Float[Array, "B T V"]: ...

    @overload
    def __call__(
        self, tokens: Int[Array, "B T"], cache: Cache
    ) -> tuple[Float[Array, "B T V"], Cache]: ...

    def __call__(
        self, tokens: Int[Array, "B T"], cache: Cache | None = None
    ) -> Float[Array, "B T V"] | tuple[Float[Array, "B T V"], Cache]:
        """Scores of the token behind each of `tokens`.

        Without a cache the tokens are a whole sequence. With one they follow what it has seen, be
        they a prompt or a single step, and the cache comes back with them added.

        Raises:
            ValueError: more tokens than the model has positions.
        """
        if tokens.shape[1] > self.config.max_positions:
            raise ValueError(
                f"The model has {self.config.max_positions} positions, got {tokens.shape[1]} "
                "tokens; cut the text in windows."
            )
        start = cache[0].length if cache else 0
        positions = start + jnp.arange(tokens.shape[1])
        x = self.embed(tokens, positions)
        added: Cache = []
        for index, block in enumerate(self.layers):
            x, layer = block(x, positions, None if cache is None else cache[index])
            if layer is not None:
                added.append(layer)
        logits = self.logits(x)
        return logits if cache is None else (logits, added)
