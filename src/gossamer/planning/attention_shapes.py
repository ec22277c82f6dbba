"""Sizes of attention and of the models that FLAT is measured with, and their products' intensity.

Letters are FLAT's: B batch, N sequence, H heads, d head_dim, D = H d hidden size. L is the product
of queries and keys, A the product of its softmax with values; both take B H N^2 d multiply-adds.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, sections 2 and 3.
"""

import dataclasses
from collections.abc import Mapping

from gossamer.planning.shapes import Kernels, ModelShape


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Sizes of one layer's attention, every query looking at every key.

    Attributes:
        batch: B, sequences.
        sequence: N, tokens of each.
        heads: H.
        head_dim: d.
        element_bytes: of queries, keys, values, scores and the output.
    """

    batch: int
    sequence: int
    heads: int
    head_dim: int
    element_bytes: int = 2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            size = getattr(self, field.name)
            if size < 1:
                raise ValueError(f"{field.name} of attention needs 1 or more, got {size}.")

    @property
    def width(self) -> int:
        """D, of all heads together."""
        return self.heads * self.head_dim

    @property
    def scores(self) -> int:
        """B H N^2, elements of the intermediate between both products."""
        return self.batch * self.heads * self.sequence**2

    @property
    def macs(self) -> int:
        """B H N^2 d, multiply-adds of each of both products."""
        return self.scores * self.head_dim

    @property
    def compulsory_bytes(self) -> int:
        """That no dataflow goes below: queries, keys and values read, the output written, once."""
        return 4 * self.batch * self.sequence * self.width * self.element_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionModel:
    """The sizes of a model's block that its cost depends on.

    Attributes:
        heads: H.
        head_dim: d.
        feed_forward: width between both feed-forward layers.
        source: the model whose kernels the linear layers are; None: FLAT's, D wide on both sides.
    """

    heads: int
    head_dim: int
    feed_forward: int
    source: ModelShape | None = None

    @classmethod
    def of(cls, shape: ModelShape) -> "AttentionModel":
        """That of a model. Of an encoder-decoder, the encoder is meant.

        Its attention has all heads of queries for keys and values too, as FLAT's: with fewer of
        them it reads less than is counted.

        Example:
            >>> from gossamer.planning import find_shape
            >>> llama = AttentionModel.of(find_shape("llama-3-8b"))
            >>> llama.heads, llama.linear_layers()["attention.k_proj.kernel"]
            (32, (4096, 1024))
        """
        return cls(
            heads=shape.heads, head_dim=shape.head_dim, feed_forward=shape.d_ff, source=shape
        )

    def shape(self, sequence: int, *, batch: int = 64) -> AttentionShape:
        """The attention of a block; FLAT is measured at a batch of 64."""
        return AttentionShape(
            batch=batch, sequence=sequence, heads=self.heads, head_dim=self.head_dim
        )

    @property
    def block(self) -> ModelShape:
        """The model whose kernels the linear layers are; FLAT's is one block, named as OPT's."""
        return self.source or ModelShape(
            name="block",
            layers=1,
            d_model=self.heads * self.head_dim,
            d_ff=self.feed_forward,
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.head_dim,
            vocabulary=1,  # what comes before and after the blocks does not count
            ffn_matrices=2,
            naming="opt",
        )

    def linear_layers(self) -> Kernels:
        """The kernels `(in, out)` of a block, by their paths inside it."""
        return self.block.block_kernels(self.block.stack("prefill"))


FLAT_MODELS: Mapping[str, AttentionModel] = {
    "bert-base": AttentionModel(heads=12, head_dim=64, feed_forward=3072),
    "transformer-xl": AttentionModel(heads=16, head_dim=64, feed_forward=4096),
    "flaubert": AttentionModel(heads=16, head_dim=64, feed_forward=4096),
    "t5-small": AttentionModel(heads=8, head_dim=64, feed_forward=2048),
    "xlm": AttentionModel(heads=16, head_dim=128, feed_forward=8192),
}
"""What FLAT is measured with. Source: the artifact of FuseMax (Nayak et al., MICRO 2024, arXiv
2406.10491), which takes FlauBERT for Transformer-XL's equal, and of T5 the encoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """One product, or several that are fused, each tensor moved once.

    Attributes:
        macs: multiply-adds.
        read: elements that come from memory.
        written: elements that go there.
    """

    macs: int
    read: int
    written: int

    def intensity(self, element_bytes: int = 2) -> float:
        """Multiply-adds a byte of memory traffic; FLOPs a byte are twice as many.

        Example:
            >>> projection_operator(512, 1024, 1024).intensity()
            128.0
        """
        return self.macs / (element_bytes * (self.read + self.written))

    def fuse(self, following: "Operator") -> "Operator":
        """With an operator whose input this one's output is, which then never leaves the chip.

        Raises:
            ValueError: the following operator reads less than this one writes.
        """
        if following.read < self.written:
            raise ValueError(
                f"An operator that reads {following.read} elements cannot be fused with one that "
                f"writes {self.written}: they need to be its input."
            )
        return Operator(
            macs=self.macs + following.macs,
            read=self.read + following.read - self.written,
            written=following.written,
        )


def projection_operator(tokens: int, inputs: int, outputs: int) -> Operator:
    """The product of activations with a weight `[inputs, outputs]`."""
    return Operator(
        macs=tokens * inputs * outputs,
        read=tokens * inputs + inputs * outputs,
        written=tokens * outputs,
    )


def logit_operator(shape: AttentionShape) -> Operator:
    """L, queries with keys. Its intensity does not grow with the batch.

    Example:
        >>> xlm = FLAT_MODELS["xlm"]
        >>> for batch in (1, 64):
        ...     print(round(logit_operator(xlm.shape(512, batch=batch)).intensity(), 2))
        42.67
        42.67
    """
    tensor = shape.batch * shape.sequence * shape.width
    return Operator(macs=shape.macs, read=2 * tensor, written=shape.scores)


def attend_operator(shape: AttentionShape) -> Operator:
    """A, the softmax with values."""
    tensor = shape.batch * shape.sequence * shape.width
    return Operator(macs=shape.macs, read=shape.scores + tensor, written=tensor)
