"""T5 and Flan-T5: an encoder and a decoder with relative positions, RMSNorm, no biases.

Source: Raffel et al. 2020, arXiv 1910.10683 (v1.0: ReLU, tied), and Shazeer 2020, arXiv 2002.05202
(v1.1 and Flan-T5: gated GELU, untied); numerics and names of parameters follow
`T5ForConditionalGeneration` of Hugging Face transformers.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gossamer.models import _hf
from gossamer.models._model import Block, Model, Rescalable, Sublayer, numbered
from gossamer.nn.attention import CacheType, KeyValueCache, attend_freely
from gossamer.nn.linear import Embedding, FusedLinear, Linear, Positions, fuse
from gossamer.nn.norms import RMSNorm, rms_norm
from gossamer.nn.relative_positions import relative_bias

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gated-gelu": functools.partial(jax.nn.gelu, approximate=True),
}

KeysAndValues: TypeAlias = tuple[Float[Array, "B S N H"], Float[Array, "B S N H"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes and settings of a T5 model.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        intermediate_size: F.
        num_layers: blocks of the encoder.
        num_decoder_layers: blocks of the decoder.
        num_heads: N.
        head_dim: H.
        buckets: distances that have a bias of their own; the encoder uses half for each direction.
        max_distance: tokens apart from which on all distances share a bucket.
        norm_epsilon: of RMSNorm.
        activation: of the feed-forward layers.
        tied: the embedding is the output projection too.
        scaled_output: what enters the output projection is divided by sqrt(D).
        start_id: the token that the decoder begins with, which pads too.
        end_id: the token behind every text.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    head_dim: int
    buckets: int = 32
    max_distance: int = 128
    norm_epsilon: float = 1e-6
    activation: Literal["relu", "gated-gelu"] = "relu"
    tied: bool = True
    scaled_output: bool = True
    start_id: int = 0
    end_id: int = 1

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4:
            raise ValueError(f"T5Config needs buckets in multiples of 4, got {self.buckets}.")
        if self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"T5Config needs max_distance above half of its buckets, got {self.max_distance} "
                f"and {self.buckets}."
            )

    @property
    def gated(self) -> bool:
        """Whether feed-forward layers have a gate."""
        return self.activation == "gated-gelu"

    @property
    def num_blocks(self) -> int:
        """How many `blocks` there are, those of both sides."""
        return self.num_layers + self.num_decoder_layers

    @property
    def blocks(self) -> tuple[str, ...]:
        """The path of every block, in the order in which they run."""
        return numbered("encoder.layers", self.num_layers) + numbered(
            "decoder.layers", self.num_decoder_layers
        )

    def without_blocks(self) -> "T5Config":
        """The two ends alone."""
        return dataclasses.replace(self, num_layers=0, num_decoder_layers=0)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "T5Config":
        """Reads the fields of a Hugging Face `config.json`.

        Raises:
            ValueError: fields are missing or malformed, or ask for what is not supported; all are
                named.
        """
        fields = _hf.HfFields(data)
        fields.only("model_type", "t5")
        fields.only("feed_forward_proj", *ACTIVATIONS)
        fields.only("quantization_config", None)
        layers = fields.integer("num_layers")
        tied = fields.flag("tie_word_embeddings", True)
        config = {
            "vocab_size": fields.integer("vocab_size"),
            "hidden_size": fields.integer("d_model"),
            "intermediate_size": fields.integer("d_ff"),
            "num_layers": layers,
            "num_decoder_layers": fields.integer("num_decoder_layers", layers),
            "num_heads": fields.integer("num_heads"),
            "head_dim": fields.integer("d_kv"),
            "buckets": fields.integer("relative_attention_num_buckets", 32),
            "max_distance": fields.integer("relative_attention_max_distance", 128),
            "norm_epsilon": fields.number("layer_norm_epsilon", 1e-6),
            "activation": data.get("feed_forward_proj") or "relu",
            "tied": tied,
            # Only transformers 5 writes it; before, what was tied was scaled.
            "scaled_output": fields.flag("scale_decoder_outputs", tied),
            "start_id": fields.token("decoder_start_token_id", 0),
            "end_id": fields.token("eos_token_id", 1),
        }
        fields.check()
        return cls(**config)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that transformers 4 and 5 read."""
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "vocab_size": self.vocab_size,
            "d_model": self.hidden_size,
            "d_ff": self.intermediate_size,
            "d_kv": self.head_dim,
            "num_layers": self.num_layers,
            "num_decoder_layers": self.num_decoder_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.max_distance,
            "layer_norm_epsilon": self.norm_epsilon,
            "feed_forward_proj": self.activation,
            "tie_word_embeddings": self.tied,
            "scale_decoder_outputs": self.scaled_output,
            "decoder_start_token_id": self.start_id,
            "pad_token_id": self.start_id,
            "eos_token_id": self.end_id,
            "torch_dtype": "float32",
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class T5Inputs:
    """Texts and what is known of their translations; a row may hold several pairs.

    Attributes:
        source: tokens that are read.
        target: tokens in front of those to be predicted: each text's begins with `start_id`.
        source_segments: equal for tokens of one pair; 0 is padding.
        target_segments: the same numbers.
    """

    source: Int[Array, "B S"]
    target: Int[Array, "B T"]
    source_segments: Int[Array, "B S"]
    target_segments: Int[Array, "B T"]

    @classmethod
    def of(cls, source: Int[Array, "B S"], target: Int[Array, "B T"]) -> "T5Inputs":
        """A pair a row, without padding."""
        return cls(source, target, jnp.ones_like(source), jnp.ones_like(target))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class T5Flow:
    """What goes from block to block: hidden states, and small weights of the ends.

    Attributes:
        source: hidden states of the encoder.
        target: hidden states of the decoder.
        source_segments: see `T5Inputs`.
        target_segments: the same.
        encoder_biases: of relative positions, the same for all rows.
        decoder_biases: the same.
        encoder_scale: of the norm behind the encoder, the same for all rows.
    """

    source: Float[Array, "B S D"]
    target: Float[Array, "B T D"]
    source_segments: Int[Array, "B S"]
    target_segments: Int[Array, "B T"]
    encoder_biases: Float[Array, "B buckets N"]
    decoder_biases: Float[Array, "B buckets N"]
    encoder_scale: Float[Array, "B D"]


class T5Attention(nnx.Module):
    """Attention without scale and biases: what it looks at is given to it."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs) -> None:
        hidden, inner = config.hidden_size, config.num_heads * config.head_dim
        # Scores are not divided by sqrt(H): queries begin smaller by as much.
        query_stddev = (hidden * config.head_dim) ** -0.5
        self.q_proj = Linear(hidden, inner, stddev=query_stddev, rngs=rngs)
        self.k_proj = Linear(hidden, inner, stddev=hidden**-0.5, rngs=rngs)
        self.v_proj = Linear(hidden, inner, stddev=hidden**-0.5, rngs=rngs)
        self.o_proj = Linear(inner, hidden, stddev=inner**-0.5, rngs=rngs)
        self.qkv_proj: FusedLinear | None = None
        self.kv_proj: FusedLinear | None = None
        self.head_dim = config.head_dim

    def fuse(self, own: bool = True) -> None:
        """Projects by one product what shares an input, where the kernels allow it.

        Args:
            own: queries come from the tokens that are looked at, so that they share it too.
        """
        fused = fuse(self.q_proj, self.k_proj, self.v_proj) if own else None
        if fused is not None:
            self.qkv_proj = nnx.data(fused)
            del self.q_proj, self.k_proj, self.v_proj
        elif (pair := fuse(self.k_proj, self.v_proj)) is not None:
            self.kv_proj = nnx.data(pair)
            del self.k_proj, self.v_proj

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        """What looks."""
        return self._heads(self.q_proj(x))

    def keys_and_values(self, x: Float[Array, "B S D"]) -> KeysAndValues:
        """What is looked at, and what is found there."""
        if self.kv_proj is not None:
            keys, values = self.kv_proj(x)
        else:
            keys, values = self.k_proj(x), self.v_proj(x)
        return self._heads(keys), self._heads(values)

    def all_of(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T N H"], KeysAndValues]:
        """Queries, and the keys and values of the same tokens."""
        if self.qkv_proj is None:
            return self.queries(x), self.keys_and_values(x)
        queries, keys, values = (self._heads(part) for part in self.qkv_proj(x))
        return queries, (keys, values)

    def __call__(
        self,
        queries: Float[Array, "B T N H"],
        others: KeysAndValues,
        seen: Bool[Array, "B T S"],
        bias: Float[Array, "N T S"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Mixes what the queries may see."""
        keys, values = others
        mixed = attend_freely(queries, keys, values, scale=1.0, bias=bias, seen=seen)
        return self.o_proj(mixed)

    def _heads(self, x: Float[Array, "B T inner"]) -> Float[Array, "B T N H"]:
        return x.reshape(*x.shape[:2], -1, self.head_dim)


class T5Mlp(nnx.Module):
    r"""A feed-forward layer: :math:`\phi(x W_u) W_d`, or :math:`(\phi(x W_g) \odot x W_u) W_d`."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs) -> None:
        hidden, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = (
            Linear(hidden, wide, stddev=hidden**-0.5, rngs=rngs) if config.gated else None
        )
        self.up_proj = Linear(hidden, wide, stddev=hidden**-0.5, rngs=rngs)
        self.down_proj = Linear(wide, hidden, stddev=wide**-0.5, rngs=rngs)
        self.gate_up_proj: FusedLinear | None = None
        self.activation = config.activation

    def fuse(self) -> None:
        """Projects gate and up by one product, where there is a gate and the kernels allow it."""
        fused = None if self.gate_proj is None else fuse(self.gate_proj, self.up_proj)
        if fused is not None:
            self.gate_up_proj = nnx.data(fused)
            del self.gate_proj, self.up_proj

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Transforms each token by itself."""
        activate = ACTIVATIONS[self.activation]
        if self.gate_up_proj is not None:
            gate, up = self.gate_up_proj(x)
            return self.down_proj(activate(gate) * up)
        if self.gate_proj is None:
            return self.down_proj(activate(self.up_proj(x)))
        return self.down_proj(activate(self.gate_proj(x)) * self.up_proj(x))


class T5Block(Block):
    """What blocks of encoder and decoder share: attention to their own tokens, feed-forward."""

    BOTH_WAYS: ClassVar[bool]

    def __init__(self, config: T5Config, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.attention = T5Attention(config, rngs)
        self.mlp_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.mlp = T5Mlp(config, rngs)
        self.config = config

    @classmethod
    def rescalable(cls, config: T5Config) -> tuple[Rescalable, ...]:
        """Inputs behind norms, and what two projections make between them."""
        wide = ("mlp.gate_proj", "mlp.up_proj") if config.gated else ("mlp.up_proj",)
        return (
            *cls.RESCALABLE,
            Rescalable("mlp_norm", wide, sublayer="mlp", norm=True),
            # The ungated projection, or ReLU, which is proportional for positive factors.
            Rescalable("mlp.up_proj", ("mlp.down_proj",)),
        )

    def bias(
        self, table: Float[Array, "buckets N"], queries: Int[Array, " T"], keys: Int[Array, " S"]
    ) -> Float[Array, "N T S"]:
        """What positions add to the scores of a block's own tokens."""
        distance = self.config.max_distance
        return relative_bias(table, queries, keys, max_distance=distance, both_ways=self.BOTH_WAYS)

    def attend(
        self,
        x: Float[Array, "B T D"],
        segments: Int[Array, "B T"],
        table: Float[Array, "buckets N"],
    ) -> Float[Array, "B T D"]:
        """Lets normalized tokens look at each other, within their segments."""
        places = jnp.arange(x.shape[1])
        seen = segments[:, :, None] == segments[:, None, :]
        if not self.BOTH_WAYS:
            seen &= places[:, None] >= places
        queries, others = self.attention.all_of(x)
        return self.attention(queries, others, seen, self.bias(table, places, places))


class T5EncoderBlock(T5Block):
    """One block of the encoder."""

    BOTH_WAYS = True
    RESCALABLE = (
        Rescalable(
            "attention_norm",
            ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            sublayer="attention",
            norm=True,
        ),
        Rescalable("attention.v_proj", ("attention.o_proj",)),
    )

    def real_tokens(self, path: str, flow: T5Flow) -> Bool[Array, "B S"]:
        """All kernels read the source."""
        del path
        return flow.source_segments != 0

    def through(self, flow: T5Flow) -> T5Flow:
        """Puts the source through."""
        x = flow.source
        x = x + self.sublayer("attention", self.attention_norm(x), flow)
        return dataclasses.replace(flow, source=x + self.mlp(self.mlp_norm(x)))

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B S D"], flow: T5Flow
    ) -> Float[Array, "B S D"]:
        """What one of the two layers makes of normalized input."""
        if which == "mlp":
            return self.mlp(x)
        return self.attend(x, flow.source_segments, flow.encoder_biases[0])


class T5DecoderBlock(T5Block):
    """One block of the decoder, which looks at the source between its other two layers."""

    BOTH_WAYS = False
    RESCALABLE = (
        *T5EncoderBlock.RESCALABLE,
        Rescalable(
            "cross_attention_norm",
            ("cross_attention.q_proj",),
            sublayer="cross_attention",
            norm=True,
        ),
        Rescalable("cross_attention.v_proj", ("cross_attention.o_proj",)),
    )

    def __init__(self, config: T5Config, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs)
        self.cross_attention_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.cross_attention = T5Attention(config, rngs)

    def fuse(self) -> None:
        """As every block; what looks at the source does not come from it."""
        self.attention.fuse()
        self.cross_attention.fuse(own=False)
        self.mlp.fuse()

    def real_tokens(self, path: str, flow: T5Flow) -> Bool[Array, "B _"]:
        """Keys and values of cross-attention are the source's, all else is of the target."""
        reads = path.startswith(("cross_attention.k_proj", "cross_attention.v_proj"))
        return (flow.source_segments if reads else flow.target_segments) != 0

    def through(self, flow: T5Flow) -> T5Flow:
        """Puts the target through."""
        x = flow.target
        x = x + self.sublayer("attention", self.attention_norm(x), flow)
        x = x + self.sublayer("cross_attention", self.cross_attention_norm(x), flow)
        return dataclasses.replace(flow, target=x + self.mlp(self.mlp_norm(x)))

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B T D"], flow: T5Flow
    ) -> Float[Array, "B T D"]:
        """What one of the three layers makes of normalized input."""
        if which == "mlp":
            return self.mlp(x)
        if which == "attention":
            return self.attend(x, flow.target_segments, flow.decoder_biases[0])
        source = rms_norm(flow.source, flow.encoder_scale[0], self.config.norm_epsilon)
        seen = flow.target_segments[:, :, None] == flow.source_segments[:, None, :]
        others = self.cross_attention.keys_and_values(source)
        return self.cross_attention(self.cross_attention.queries(x), others, seen)

    def step(
        self,
        x: Float[Array, "B 1 D"],
        cache: KeyValueCache,
        others: KeysAndValues,
        seen: Bool[Array, "B 1 S"],
        table: Float[Array, "buckets N"],
    ) -> tuple[Float[Array, "B 1 D"], KeyValueCache]:
        """Puts one token more through; `cache` holds those before it, `others` the source's."""
        queries, new = self.attention.all_of(self.attention_norm(x))
        place = cache.length
        cache = cache.append(*(each.transpose(0, 2, 1, 3) for each in new))
        keys, values = (each.transpose(0, 2, 1, 3) for each in cache.decoded())
        room = jnp.arange(cache.max_tokens)
        past = jnp.broadcast_to(room <= place, (x.shape[0], 1, room.size))
        bias = self.bias(table, place[None], room)
        x = x + self.attention(queries, (keys, values), past, bias)
        queries = self.cross_attention.queries(self.cross_attention_norm(x))
        x = x + self.cross_attention(queries, others, seen)
        return x + self.mlp(self.mlp_norm(x)), cache


Kind = TypeVar("Kind", T5EncoderBlock, T5DecoderBlock)


class T5Stack(nnx.Module, Generic[Kind]):
    """The encoder or the decoder: its positions' biases, its blocks, and its norm."""

    def __init__(self, kind: type[Kind], count: int, config: T5Config, rngs: nnx.Rngs) -> None:
        self.relative_bias = Positions(config.buckets, config.num_heads, rngs=rngs)
        self.layers: nnx.List[Kind] = nnx.List([kind(config, rngs) for _ in range(count)])
        self.norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)


class T5(Model):
    """A T5 model: a text in, scores of the tokens of another out.

    Attributes:
        embedding: token vectors of both sides.
        encoder: reads the source.
        decoder: writes the target.
        output: None where the embedding is the output projection too (tied).
    """

    @classmethod
    def hf_names(cls, config: T5Config) -> dict[str, str]:
        """Our path of a module -> that of transformers."""
        parts = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}
        mlp = {"gate_proj": "wi_0", "up_proj": "wi_1" if config.gated else "wi", "down_proj": "wo"}
        layers = {
            "encoder": (("attention", "SelfAttention"), ("mlp", "DenseReluDense")),
            "decoder": (
                ("attention", "SelfAttention"),
                ("cross_attention", "EncDecAttention"),
                ("mlp", "DenseReluDense"),
            ),
        }
        names = {"embedding": "shared", "output": "lm_head"}
        for side, order in layers.items():
            names[f"{side}.norm"] = f"{side}.final_layer_norm"
            first = f"{side}.block.0.layer.0.SelfAttention"
            names[f"{side}.relative_bias"] = f"{first}.relative_attention_bias"
            for number, (ours, theirs) in enumerate(order):
                layer = f"{side}.block.*.layer.{number}"
                names[f"{side}.layers.*.{ours}_norm"] = f"{layer}.layer_norm"
                for part, name in (mlp if ours == "mlp" else parts).items():
                    names[f"{side}.layers.*.{ours}.{part}"] = f"{layer}.{theirs}.{name}"
        return names

    def __init__(self, config: T5Config, rngs: nnx.Rngs) -> None:
        size = config.hidden_size
        # One matrix that is not scaled begins as an output projection does. Adam moves all weights
        # by steps of one size, so it learns faster than one that begins at 1.
        as_output = config.tied and not config.scaled_output
        stddev = size**-0.5 if as_output else 1.0
        self.embedding = Embedding(config.vocab_size, size, stddev=stddev, rngs=rngs)
        self.encoder = T5Stack(T5EncoderBlock, config.num_layers, config, rngs)
        self.decoder = T5Stack(T5DecoderBlock, config.num_decoder_layers, config, rngs)
        self.output = (
            None if config.tied else Linear(size, config.vocab_size, stddev=size**-0.5, rngs=rngs)
        )
        self.config = config

    @classmethod
    def block_class(cls, path: str) -> type[T5Block]:
        """Of the encoder or of the decoder."""
        return T5EncoderBlock if path.startswith("encoder.") else T5DecoderBlock

    def set_blocks(self, blocks: Sequence[Block]) -> None:
        """Takes the encoder's blocks, then the decoder's."""
        self.encoder.layers = nnx.List([b for b in blocks if isinstance(b, T5EncoderBlock)])
        self.decoder.layers = nnx.List([b for b in blocks if isinstance(b, T5DecoderBlock)])

    def begin(self, inputs: T5Inputs) -> T5Flow:
        """What enters the first block."""
        return self._flow(inputs, self.embedding(inputs.source), self.embedding(inputs.target))

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Scores of every next token, from the hidden states that leave the last block."""
        x = self.decoder.norm(x)
        if self.config.scaled_output:
            x = x * jnp.asarray(self.config.hidden_size**-0.5, x.dtype)
        return self.embedding.logits(x) if self.output is None else self.output(x)

    def __call__(self, inputs: T5Inputs) -> Float[Array, "B T V"]:
        """Scores of the token behind each of the targets'."""
        flow = self.begin(inputs)
        for block in (*self.encoder.layers, *self.decoder.layers):
            flow = block.through(flow)
        return self.logits(flow.target)

    def read(self, source: Int[Array, "B S"], segments: Int[Array, "B S"]) -> list[KeysAndValues]:
        """What each block of the decoder looks at in a source."""
        nothing = jnp.zeros((len(source), 0), source.dtype)
        inputs = T5Inputs(source, nothing, segments, nothing)
        x = self.embedding(source)
        flow = self._flow(inputs, x, jnp.zeros((len(x), 0, x.shape[-1]), x.dtype))
        for block in self.encoder.layers:
            flow = block.through(flow)
        encoded = self.encoder.norm(flow.source)
        return [block.cross_attention.keys_and_values(encoded) for block in self.decoder.layers]

    def empty_cache(
        self, batch_size: int, max_tokens: int, dtype: CacheType = "float32"
    ) -> list[KeyValueCache]:
        """Room for `max_tokens` tokens of `batch_size` targets, for each block of the decoder."""
        config = self.config
        return [
            KeyValueCache.empty(
                batch_size=batch_size,
                num_kv_heads=config.num_heads,
                max_tokens=max_tokens,
                head_dim=config.head_dim,
                dtype=dtype,
            )
            for _ in range(config.num_decoder_layers)
        ]

    def step(
        self,
        tokens: Int[Array, " B"],
        cache: Sequence[KeyValueCache],
        read: Sequence[KeysAndValues],
        segments: Int[Array, "B S"],
    ) -> tuple[Float[Array, "B V"], list[KeyValueCache]]:
        """Scores of the next token of each row, and the cache with these tokens added.

        Args:
            tokens: the last of each row; `start_id` at first.
            cache: of the tokens before them.
            read: what `read` gave for the sources.
            segments: of the sources, 0 for padding.
        """
        x = self.embedding(tokens[:, None])
        table, seen = self.decoder.relative_bias.table.get_value(), segments[:, None] != 0
        added = []
        for block, before, others in zip(self.decoder.layers, cache, read, strict=True):
            x, after = block.step(x, before, others, seen, table)
            added.append(after)
        return self.logits(x)[:, 0], added

    def _flow(
        self, inputs: T5Inputs, source: Float[Array, "B S D"], target: Float[Array, "B T D"]
    ) -> T5Flow:
        def everywhere(weight: nnx.Variable) -> Array:
            value = weight.get_value()
            return jnp.broadcast_to(value, (len(source), *value.shape))

        return T5Flow(
            source,
            target,
            inputs.source_segments,
            inputs.target_segments,
            everywhere(self.encoder.relative_bias.table),
            everywhere(self.decoder.relative_bias.table),
            everywhere(self.encoder.norm.scale),
        )
