"""What all decoders share: blocks with their norms in front, and the way through them."""

import dataclasses
from typing import ClassVar, Literal, Protocol, TypeAlias, overload, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

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


_LEAVES = {"kernel": "weight", "scale": "weight", "table": "weight", "bias": "bias"}


@runtime_checkable
class Fusible(Protocol):
    """A layer with projections that share an input."""

    def fuse(self) -> None:
        """Makes one product of them, where their kernels are stored alike."""


Sublayer: TypeAlias = Literal["attention", "mlp"]


@dataclasses.dataclass(frozen=True)
class Rescalable:
    """An input whose channels can be divided by any numbers, and its kernels multiplied by them.

    What makes the input is proportional to parameters of its own, channel by channel, which take
    the division: the model computes the same.

    Attributes:
        source: path of the norm or the projection that makes it, within the block.
        projections: all that multiply by it.
        sublayer: whose output tells what errors in the projections cost; None: their own.
        norm: whether `source` is a norm.
    """

    source: str
    projections: tuple[str, ...]
    sublayer: Sublayer | None = None
    norm: bool = False


class Block(nnx.Module):
    """Attention, then a feed-forward layer, each on normalized input and added to the stream.

    A family's block sets the four layers; their names are those of its parameters.

    Attributes:
        RESCALABLE: inputs of projections that can be rescaled; ask `rescalable`.
        SCORE_PROJECTIONS: projections of queries and keys.
    """

    RESCALABLE: ClassVar[tuple[Rescalable, ...]]
    SCORE_PROJECTIONS: ClassVar[tuple[str, ...]] = ("attention.q_proj", "attention.k_proj")

    attention_norm: nnx.Module
    attention: nnx.Module
    mlp_norm: nnx.Module
    mlp: nnx.Module

    def __init__(self, config: Sizes, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

    @classmethod
    def rescalable(cls, config: Sizes) -> tuple[Rescalable, ...]:
        """The inputs of projections that can be rescaled in a model of this configuration."""
        del config
        return cls.RESCALABLE

    def fuse(self) -> None:
        """Makes one product of those that share an input, where their kernels are stored alike.

        For running only: the parameters get other paths.
        """
        for layer in (self.attention, self.mlp):
            if isinstance(layer, Fusible):
                layer.fuse()

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B T D"], positions: Int[Array, " T"]
    ) -> Float[Array, "B T D"]:
        """What one of the two layers makes of whole sequences of normalized input."""
        if which == "attention":
            return self.attention(x, positions, None)[0]
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


class Decoder(nnx.Module):
    """A language model: tokens in, scores of the next token out.

    Attributes:
        embedding: token vectors.
        layers: the blocks.
        norm: in front of the output.
        output: None where the embedding is the output projection too (tied).
    """

    Block: ClassVar[type[Block]]
    HF_NAMES: ClassVar[dict[str, str]]

    embedding: Embedding
    layers: nnx.List
    norm: RMSNorm | LayerNorm
    output: Linear | None
    config: Sizes

    def __init__(self, config: Sizes, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

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


def hf_key(names: dict[str, str], path: str) -> str:
    """Translates a parameter's path by a family's table of module names.

    Raises:
        ValueError: the table lacks a part of the path.
    """
    *modules, leaf = path.split(".")
    where = ".".join("*" if part.isdigit() else part for part in modules)
    if where not in names or leaf not in _LEAVES:
        raise ValueError(f"{path!r} is no parameter of this family; modules: {list(names)}.")
    index = next((part for part in modules if part.isdigit()), "")
    return f"{names[where].replace('*', index)}.{_LEAVES[leaf]}"
