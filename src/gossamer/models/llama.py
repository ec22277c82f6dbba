"""Llama and what shares its shape (SmolLM2, TinyStories): RMSNorm, rotary, grouped queries, SwiGLU.

Source: Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; numerics and names of parameters
follow `LlamaForCausalLM` of Hugging Face transformers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.models import _decoder, _hf
from gossamer.models._model import Rescalable, numbered
from gossamer.nn.attention import KeyValueCache, attend
from gossamer.nn.linear import Embedding, FusedLinear, Linear, QkvProjections, fuse
from gossamer.nn.norms import RMSNorm
from gossamer.nn.rotary import Rotary, rotate


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes and settings of a Llama model.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        intermediate_size: F.
        num_layers: blocks; 0 leaves the two ends, for models that are read a block at a time.
        num_heads: N, a multiple of `num_kv_heads`.
        num_kv_heads: K.
        head_dim: H, even.
        max_positions: tokens of the longest sequence.
        norm_epsilon: of RMSNorm.
        rotary: how positions turn queries and keys.
        tied: the embedding is the output projection too.
        attention_bias: the four projections of attention have biases.
        mlp_bias: the three projections of the feed-forward layer have biases.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_epsilon: float = 1e-5
    rotary: Rotary = dataclasses.field(default_factory=Rotary)
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"LlamaConfig needs num_heads to be a multiple of num_kv_heads, got "
                f"{self.num_heads} and {self.num_kv_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"LlamaConfig needs an even head_dim, rotary turns pairs, got {self.head_dim}."
            )

    @property
    def num_blocks(self) -> int:
        """How many `blocks` there are."""
        return self.num_layers

    @property
    def blocks(self) -> tuple[str, ...]:
        """The path of every block, in the order in which they run."""
        return numbered("layers", self.num_layers)

    def without_blocks(self) -> "LlamaConfig":
        """The two ends alone."""
        return dataclasses.replace(self, num_layers=0)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "LlamaConfig":
        """Reads the fields of a Hugging Face `config.json`.

        Raises:
            ValueError: fields are missing or malformed, or ask for what is not supported; all are
                named.
        """
        fields = _hf.HfFields(data)
        fields.only("model_type", "llama")
        fields.only("hidden_act", "silu")
        for name in ("sliding_window", "quantization_config"):
            fields.only(name, None)
        fields.only("rope_interleaved", False)
        hidden_size = fields.integer("hidden_size")
        num_heads = fields.integer("num_attention_heads")
        config = {
            "vocab_size": fields.integer("vocab_size"),
            "hidden_size": hidden_size,
            "intermediate_size": fields.integer("intermediate_size"),
            "num_layers": fields.integer("num_hidden_layers"),
            "num_heads": num_heads,
            "num_kv_heads": fields.integer("num_key_value_heads", num_heads),
            "head_dim": fields.integer("head_dim", max(1, hidden_size // num_heads)),
            "max_positions": fields.integer("max_position_embeddings"),
            "norm_epsilon": fields.number("rms_norm_eps"),
            "rotary": fields.rotary(),
            "tied": fields.flag("tie_word_embeddings", False),
            "attention_bias": fields.flag("attention_bias", False),
            "mlp_bias": fields.flag("mlp_bias", False),
        }
        fields.check()
        return cls(**config)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that transformers 4 and 5 read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_epsilon,
            **_hf.rotary_to_hf(self.rotary),
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "torch_dtype": "float32",
        }


class LlamaAttention(QkvProjections):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        queries = config.num_heads * config.head_dim
        keys = config.num_kv_heads * config.head_dim
        super().__init__(hidden, queries, keys, bias=bias, rngs=rngs)
        self.o_proj = Linear(queries, hidden, bias=bias, rngs=rngs)
        self.config = config

    def __call__(
        self, x: Float[Array, "B T D"], positions: Int[Array, " T"], cache: KeyValueCache | None
    ) -> tuple[Float[Array, "B T D"], KeyValueCache | None]:
        """Mixes tokens; see `gossamer.nn.attention.attend`."""
        cos, sin = self.config.rotary.cos_sin(positions, self.config.head_dim)
        queries, keys, values = self.heads(x, self.config.head_dim)
        queries, keys = rotate(queries, cos, sin), rotate(keys, cos, sin)
        mixed, cache = attend(queries, keys, values, cache)
        return self.o_proj(mixed), cache


class SwiGLU(nnx.Module):
    r"""A gated feed-forward layer: :math:`(\mathrm{silu}(x W_g) \odot x W_u) W_d`.

    Source: Shazeer 2020, arXiv 2002.05202, eq. 6.
    """

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        hidden, wide, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(hidden, wide, bias=bias, rngs=rngs)
        self.up_proj = Linear(hidden, wide, bias=bias, rngs=rngs)
        self.down_proj = Linear(wide, hidden, bias=bias, rngs=rngs)
        self.gate_up_proj: FusedLinear | None = None

    def fuse(self) -> None:
        """Projects gate and up by one product, where their kernels allow it."""
        fused = fuse(self.gate_proj, self.up_proj)
        if fused is not None:
            self.gate_up_proj = nnx.data(fused)
            del self.gate_proj, self.up_proj

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Transforms each token by itself."""
        if self.gate_up_proj is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.gate_up_proj(x)
        return self.down_proj(jax.nn.silu(gate) * up)


class LlamaBlock(_decoder.DecoderBlock):
    """One decoder block."""

    RESCALABLE = (
        Rescalable(
            "attention_norm",
            ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            sublayer="attention",
            norm=True,
        ),
        Rescalable("attention.v_proj", ("attention.o_proj",)),
        Rescalable("mlp_norm", ("mlp.gate_proj", "mlp.up_proj"), sublayer="mlp", norm=True),
        Rescalable("mlp.up_proj", ("mlp.down_proj",)),
    )

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.attention = LlamaAttention(config, rngs)
        self.mlp_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.mlp = SwiGLU(config, rngs)


class Llama(_decoder.Decoder):
    """A Llama language model."""

    BLOCK = LlamaBlock
    HF_NAMES: ClassVar[dict[str, str]] = {
        "embedding": "model.embed_tokens",
        "layers.*.attention_norm": "model.layers.*.input_layernorm",
        "layers.*.attention.q_proj": "model.layers.*.self_attn.q_proj",
        "layers.*.attention.k_proj": "model.layers.*.self_attn.k_proj",
        "layers.*.attention.v_proj": "model.layers.*.self_attn.v_proj",
        "layers.*.attention.o_proj": "model.layers.*.self_attn.o_proj",
        "layers.*.mlp_norm": "model.layers.*.post_attention_layernorm",
        "layers.*.mlp.gate_proj": "model.layers.*.mlp.gate_proj",
        "layers.*.mlp.up_proj": "model.layers.*.mlp.up_proj",
        "layers.*.mlp.down_proj": "model.layers.*.mlp.down_proj",
        "norm": "model.norm",
        "output": "lm_head",
    }

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.embedding = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = nnx.List([LlamaBlock(config, rngs) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.output = (
            None if config.tied else Linear(config.hidden_size, config.vocab_size, rngs=rngs)
        )
        self.config = config

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, " T"]
    ) -> Float[Array, "B T D"]:
        """Token vectors; positions come in where queries and keys are turned."""
        return self.embedding(tokens)
