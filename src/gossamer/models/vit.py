"""Vision transformers: an image as a sequence of patches, behind a token for its class.

Source: Dosovitskiy et al. 2021, arXiv 2010.11929; numerics and names of parameters follow
`ViTForImageClassification` of Hugging Face transformers, pooling by the mean follows timm.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gossamer.models import _hf
from gossamer.models._model import Block, Flow, Model, Rescalable, Sublayer, numbered
from gossamer.nn.attention import attend_freely
from gossamer.nn.linear import Linear, Positions, QkvProjections
from gossamer.nn.mlp import ACTIVATIONS, Mlp
from gossamer.nn.norms import LayerNorm

ViTActivation: TypeAlias = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu"]
Pooling: TypeAlias = Literal["class", "mean"]

MEAN_POOLED = "gossamer-vit"
"""The `model_type` of models that transformers has no class for: it refuses them, instead of
computing something else."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Sizes of a vision transformer that classifies.

    Attributes:
        image_size: height and width, multiples of those of a patch.
        patch_size: height and width.
        channels: C, 1 for grey and 3 for colours.
        hidden_size: D, a multiple of `num_heads`.
        intermediate_size: F.
        num_layers: blocks; 0 leaves the two ends, for models that are read a block at a time.
        num_heads: N.
        num_classes: what is told apart.
        norm_epsilon: of all norms.
        qkv_bias: whether the projections of queries, keys and values have biases; all others do.
        activation: of the feed-forward layers, as transformers spells it.
        pooling: "class" reads the class token behind the last norm; "mean" reads the mean of the
            patches, with the norm behind it, as timm's `global_pool="avg"` does.
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    channels: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_classes: int
    norm_epsilon: float = 1e-12
    qkv_bias: bool = True
    activation: ViTActivation = "gelu"
    pooling: Pooling = "class"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"ViTConfig needs hidden_size to be a multiple of num_heads, got "
                f"{self.hidden_size} and {self.num_heads}."
            )
        if any(i % p for i, p in zip(self.image_size, self.patch_size, strict=True)):
            raise ValueError(
                f"ViTConfig needs image_size to be a multiple of patch_size, got "
                f"{self.image_size} and {self.patch_size}: patches would not cover the image."
            )

    @property
    def head_dim(self) -> int:
        """H."""
        return self.hidden_size // self.num_heads

    @property
    def num_patches(self) -> int:
        """Patches of an image; there is one token more."""
        (height, width), (rows, columns) = self.image_size, self.patch_size
        return (height // rows) * (width // columns)

    @property
    def num_blocks(self) -> int:
        """How many `blocks` there are."""
        return self.num_layers

    @property
    def blocks(self) -> tuple[str, ...]:
        """The path of every block, in the order in which they run."""
        return numbered("layers", self.num_layers)

    def without_blocks(self) -> "ViTConfig":
        """The two ends alone."""
        return dataclasses.replace(self, num_layers=0)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> "ViTConfig":
        """Reads the fields of a Hugging Face `config.json`, or of one that `to_hf` made.

        Raises:
            ValueError: fields are missing or malformed, or ask for what is not supported (a model
                without a classifier, heads of another size); all are named.
        """
        fields = _hf.HfFields(data)
        fields.only("model_type", "vit", MEAN_POOLED)
        mean = data.get("model_type") == MEAN_POOLED
        fields.only("pooling", "mean" if mean else None)
        fields.only("architectures", ["ViTForImageClassification"])
        fields.only("hidden_act", *ACTIVATIONS)
        fields.only("quantization_config", None)
        hidden_size = fields.integer("hidden_size", 768)
        heads = fields.integer("num_attention_heads", 12)
        fields.only("head_dim", None, hidden_size // heads)
        labels = data.get("id2label")
        classes = len(labels) if isinstance(labels, Mapping) and labels else None
        if classes is not None and data.get("num_labels") is not None:
            fields.only("num_labels", classes)
        config = {
            "image_size": fields.pair("image_size", 224),
            "patch_size": fields.pair("patch_size", 16),
            "channels": fields.integer("num_channels", 3),
            "hidden_size": hidden_size,
            "intermediate_size": fields.integer("intermediate_size", 3072),
            "num_layers": fields.integer("num_hidden_layers", 12),
            "num_heads": heads,
            "num_classes": classes or fields.integer("num_labels", 2),
            "norm_epsilon": fields.number("layer_norm_eps", 1e-12),
            "qkv_bias": fields.flag("qkv_bias", True),
            "activation": data.get("hidden_act") or "gelu",
            "pooling": "mean" if mean else "class",
        }
        fields.check()
        return cls(**config)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that transformers 4 and 5 read; one that pools by the mean they refuse,
        since they have no such model.
        """
        labels = [f"LABEL_{index}" for index in range(self.num_classes)]
        kind = {"model_type": "vit"}
        if self.pooling == "mean":
            kind = {"model_type": MEAN_POOLED, "pooling": "mean"}
        return {
            **kind,
            "architectures": ["ViTForImageClassification"],
            "image_size": _as_hf(self.image_size),
            "patch_size": _as_hf(self.patch_size),
            "num_channels": self.channels,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "layer_norm_eps": self.norm_epsilon,
            "qkv_bias": self.qkv_bias,
            "hidden_act": self.activation,
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
            "torch_dtype": "float32",
        }


def _as_hf(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def patches(
    images: Float[Array, "B H W C"], size: tuple[int, int]
) -> Float[Array, "B patches pixels"]:
    """Cuts images in patches, row by row; the pixels of a patch come channel by channel.

    This is the order of a convolution's kernel in PyTorch, so that one is a reshape of ours.

    Example:
        >>> patches(jnp.arange(8.0).reshape(1, 2, 4, 1), (2, 2))
        Array([[[0., 1., 4., 5.],
                [2., 3., 6., 7.]]], dtype=float32)
    """
    (batch, height, width, channels), (rows, columns) = images.shape, size
    cut = images.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return cut.transpose(0, 1, 3, 5, 2, 4).reshape(batch, -1, channels * rows * columns)


class ViTAttention(QkvProjections):
    """Multi-head attention among all tokens of an image."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        size, bias = config.hidden_size, config.qkv_bias
        super().__init__(size, size, size, bias=bias, rngs=rngs)
        self.out_proj = Linear(size, size, bias=True, rngs=rngs)
        self.head_dim = config.head_dim

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Mixes tokens."""
        queries, keys, values = self.heads(x, self.head_dim)
        return self.out_proj(attend_freely(queries, keys, values, scale=self.head_dim**-0.5))


class ViTBlock(Block):
    """One block: attention, then a feed-forward layer, each behind its norm."""

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
    def rescalable(cls, config: ViTConfig) -> tuple[Rescalable, ...]:
        """All, but only with ReLU what is between the two feed-forward projections."""
        return cls.RESCALABLE if config.activation == "relu" else cls.RESCALABLE[:-1]

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = LayerNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.attention = ViTAttention(config, rngs)
        self.mlp_norm = LayerNorm(config.hidden_size, epsilon=config.norm_epsilon)
        self.mlp = Mlp(
            config.hidden_size,
            config.intermediate_size,
            activation=config.activation,
            rngs=rngs,
        )

    def through(self, flow: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Puts all tokens of images through."""
        flow = flow + self.attention(self.attention_norm(flow))
        return flow + self.mlp(self.mlp_norm(flow))

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B T D"], flow: Flow
    ) -> Float[Array, "B T D"]:
        """What one of the two layers makes of normalized input."""
        del flow
        return self.attention(x) if which == "attention" else self.mlp(x)


class ViT(Model):
    """A vision transformer: images in, scores of classes out.

    Attributes:
        patch_embedding: from the pixels of a patch to its token.
        class_token: the token in front of the patches.
        positions: a vector for each token, the class token's first.
        layers: the blocks.
        norm: in front of the classifier.
        head: the classifier.
    """

    HF_NAMES: ClassVar[dict[str, str]] = {
        "patch_embedding": "vit.embeddings.patch_embeddings.projection",
        "class_token": "vit.embeddings.cls_token.",
        "positions": "vit.embeddings.position_embeddings.",
        "layers.*.attention_norm": "vit.encoder.layer.*.layernorm_before",
        "layers.*.attention.q_proj": "vit.encoder.layer.*.attention.attention.query",
        "layers.*.attention.k_proj": "vit.encoder.layer.*.attention.attention.key",
        "layers.*.attention.v_proj": "vit.encoder.layer.*.attention.attention.value",
        "layers.*.attention.out_proj": "vit.encoder.layer.*.attention.output.dense",
        "layers.*.mlp_norm": "vit.encoder.layer.*.layernorm_after",
        "layers.*.mlp.fc1": "vit.encoder.layer.*.intermediate.dense",
        "layers.*.mlp.fc2": "vit.encoder.layer.*.output.dense",
        "norm": "vit.layernorm",
        "head": "classifier",
    }

    @classmethod
    def hf_shapes(cls, config: ViTConfig) -> dict[str, tuple[int, ...]]:
        """The kernel of a convolution, and tables with an axis for the batch."""
        hidden = config.hidden_size
        return {
            "patch_embedding.kernel": (hidden, config.channels, *config.patch_size),
            "class_token.table": (1, 1, hidden),
            "positions.table": (1, config.num_patches + 1, hidden),
        }

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs) -> None:
        hidden = config.hidden_size
        rows, columns = config.patch_size
        pixels = config.channels * rows * columns
        self.patch_embedding = Linear(pixels, hidden, bias=True, rngs=rngs)
        self.class_token = Positions(1, hidden, rngs=rngs)
        self.positions = Positions(config.num_patches + 1, hidden, rngs=rngs)
        self.layers = nnx.List([ViTBlock(config, rngs) for _ in range(config.num_layers)])
        self.norm = LayerNorm(hidden, epsilon=config.norm_epsilon)
        self.head = Linear(hidden, config.num_classes, bias=True, rngs=rngs)
        self.config = config

    @classmethod
    def block_class(cls, path: str) -> type[Block]:
        """All blocks are of one class."""
        del path
        return ViTBlock

    def set_blocks(self, blocks: Sequence[Block]) -> None:
        """Takes all blocks, in order."""
        self.layers = nnx.List(blocks)

    def begin(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B T D"]:
        """The tokens of images, which enter the first block.

        Raises:
            ValueError: the images have another size or number of channels than the model's.
        """
        config = self.config
        if inputs.shape[1:] != (*config.image_size, config.channels):
            raise ValueError(
                f"The model takes images of {config.image_size[0]} x {config.image_size[1]} pixels "
                f"and {config.channels} channels as [B, H, W, C], got {inputs.shape}."
            )
        tokens = self.patch_embedding(patches(inputs, config.patch_size))
        first = jnp.tile(self.class_token.table.get_value(), (len(tokens), 1, 1))
        return jnp.concatenate([first, tokens], axis=1) + self.positions.table.get_value()

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B classes"]:
        """Scores of the classes, from the tokens that leave the last block."""
        pooled = x[:, 0] if self.config.pooling == "class" else jnp.mean(x[:, 1:], axis=1)
        return self.head(self.norm(pooled))

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B classes"]:
        """Scores of the classes of normalized images.

        Raises:
            ValueError: as in `begin`.
        """
        x = self.begin(images)
        for block in self.layers:
            x = block.through(x)
        return self.logits(x)
