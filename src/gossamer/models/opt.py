"""OPT: learned positions, LayerNorm, biases, ReLU or GELU.

Source: Zhang et al. 2022, arXiv 2205.01068; numerics and names of parameters follow
`OPTForCausalLM` of Hugging Face transformers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.models import _decoder, _hf
from gossamer.models._model import Rescalable, numbered
from gossamer.nn.attention import KeyValueCache, attend
from gossamer.nn.linear import Embedding, Linear, Positions, QkvProjections
from gossamer.nn.mlp import Mlp
from gossamer.nn.norms import LayerNorm

POSITION_OFFSET = 2
"""Position p is row p + 2 of the table: the first two rows were padding's where OPT was trained."""

NORM_EPSILON = 1e-5
"""PyTorch's default, which OPT does not change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptConfig:
    """Sizes of an OPT model.

    Attributes:
        vocab_size: V.
        hidden_size: D, a multiple of `num_heads`.
        intermediate_size: F.
        num_layers: blocks; 0 leaves the two ends, for models that are read a block at a time.
        num_heads: N.
        max_positions: tokens of the longest sequence; the table has `POSITION_OFFSET` rows more.
        tied: the embedding is the output projection too.
        activation: of the feed-forward layers; OPT's own models have ReLU.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    tied: bool = True
    activation: Literal["relu", "gelu"] = "relu"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"OptConfig needs hidden_size to be a multiple of num_heads, got "
                f"{self.hidden_size} and {self.num_heads}."
            )

    @property
    def num_kv_heads(self) -> int:
        """K = N: every head has its own keys and values."""
        return self.num_heads

    @property
    def head_dim(self) -> int:
        """H."""
        return self.hidden_size // self.num_heads

    @property
    def num_blocks(self) -> int:
        """How many `blocks` there are."""
        return self.num_layers

    @property
    def blocks(self) -> tuple[str, ...]:
        """The path of every block, in the order in which they run."""
        return numbered("layers", self.num_layers)

    def without_blocks(self) -> "OptConfig":
        """The two ends alone."""
        return dataclasses.replace(self, num_layers=0)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "OptConfig":
        """Reads the fields of a Hugging Face `config.json`.

        Raises:
            ValueError: fields are missing or malformed, or ask for what is not supported (norms
                behind the layers and a projected embedding, as OPT-350M has); all are named.
        """
        fields = _hf.HfFields(data)
        fields.only("model_type", "opt")
        fields.only("activation_function", "relu", "gelu")
        fields.only("quantization_config", None)
        for name in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
            fields.only(name, True)
        fields.only("_remove_final_layer_norm", False)
        hidden_size = fields.integer("hidden_size")
        fields.only("word_embed_proj_dim", hidden_size)
        config = {
            "vocab_size": fields.integer("vocab_size"),
            "hidden_size": hidden_size,
            "intermediate_size": fields.integer("ffn_dim"),
            "num_layers": fields.integer("num_hidden_layers"),
            "num_heads": fields.integer("num_attention_heads"),
            "max_positions": fields.integer("max_position_embeddings"),
            "tied": fields.flag("tie_word_embeddings", True),
            "activation": data.get("activation_function") or "relu",
        }
        fields.check()
        return cls(**config)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that transformers 4 and 5 read."""
        return {
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "word_embed_proj_dim": self.hidden_size,
            "ffn_dim": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "activation_function": self.activation,
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
        }


class OptAttention(QkvProjections):
    """Multi-head attention with biases."""

    def __init__(self, config: OptConfig, rngs: nnx.Rngs) -> None:
        size = config.hidden_size
        super().__init__(size, size, size, bias=True, rngs=rngs)
        self.out_proj = Linear(size, size, bias=True, rngs=rngs)
        self.config = config

    def __call__(
        self, x: Float[Array, "B T D"], positions: Int[Array, " T"], cache: KeyValueCache | None
    ) -> tuple[Float[Array, "B T D"], KeyValueCache | None]:
        """Mixes tokens; positions are in `x` already."""
        queries, keys, values = self.heads(x, self.config.head_dim)
        mixed, cache = attend(queries, keys, values, cache)
        return self.out_proj(mixed), cache


class OptBlock(_decoder.DecoderBlock):
    """One decoder block."""

    RESCALABLE = (
        Rescalable(
            "attention_norm",
            ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            sublayer="attention",
            norm=True,
        ),
        Rescalable("attention.v_proj", ("attention.out_proj",)),
        Rescalable("mlp_norm", ("mlp.fc1",), norm=True),
        Rescalable("mlp.fc1", ("mlp.fc2",)),  # ReLU is proportional for positive factors
    )

    @classmethod
    def rescalable(cls, config: Any) -> tuple[Rescalable, ...]:
        """All, but with GELU not what is between the two feed-forward projections."""
        return cls.RESCALABLE if config.activation == "relu" else cls.RESCALABLE[:-1]

    def __init__(self, config: OptConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = LayerNorm(config.hidden_size, epsilon=NORM_EPSILON)
        self.attention = OptAttention(config, rngs)
        self.mlp_norm = LayerNorm(config.hidden_size, epsilon=NORM_EPSILON)
        self.mlp = Mlp(
            config.hidden_size,
            config.intermediate_size,
            activation=config.activation,
            rngs=rngs,
        )


class Opt(_decoder.Decoder):
    """An OPT language model."""

    BLOCK = OptBlock
    HF_NAMES: ClassVar[dict[str, str]] = {
        "embedding": "model.decoder.embed_tokens",
        "positions": "model.decoder.embed_positions",
        "layers.*.attention_norm": "model.decoder.layers.*.self_attn_layer_norm",
        "layers.*.attention.q_proj": "model.decoder.layers.*.self_attn.q_proj",
        "layers.*.attention.k_proj": "model.decoder.layers.*.self_attn.k_proj",
        "layers.*.attention.v_proj": "model.decoder.layers.*.self_attn.v_proj",
        "layers.*.attention.out_proj": "model.decoder.layers.*.self_attn.out_proj",
        "layers.*.mlp_norm": "model.decoder.layers.*.final_layer_norm",
        "layers.*.mlp.fc1": "model.decoder.layers.*.fc1",
        "layers.*.mlp.fc2": "model.decoder.layers.*.fc2",
        "norm": "model.decoder.final_layer_norm",
        "output": "lm_head",
    }

    def __init__(self, config: OptConfig, rngs: nnx.Rngs) -> None:
        rows = config.max_positions + POSITION_OFFSET
        self.embedding = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.positions = Positions(rows, config.hidden_size, rngs=rngs)
        self.layers = nnx.List([OptBlock(config, rngs) for _ in range(config.num_layers)])
        self.norm = LayerNorm(config.hidden_size, epsilon=NORM_EPSILON)
        self.output = (
            None if config.tied else Linear(config.hidden_size, config.vocab_size, rngs=rngs)
        )
        self.config = config

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, " T"]
    ) -> Float[Array, "B T D"]:
        """Token vectors plus the vectors of their positions."""
        return self.embedding(tokens) + self.positions(positions + POSITION_OFFSET)
