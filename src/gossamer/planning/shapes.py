"""Sizes of models as planners see them: kernels by path, widths of sublayers, parameters."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Literal, TypeAlias

from gossamer.planning.names import find_known
from gossamer.planning.yaml_files import builtin_yaml, read_named, read_yaml

Phase: TypeAlias = Literal["prefill", "decode"]
Kernels: TypeAlias = Mapping[str, tuple[int, int]]
"""Path -> `(in, out)`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sublayer:
    """What lies between one addition to the residual stream and the next.

    Attributes:
        in_width: columns of the kernels that read the stream, keys and values apart.
        out_width: rows of the kernels that write it.
        key_value_width: columns of the kernels of keys and values.
        attends: whether queries look at keys in it.
    """

    in_width: int
    out_width: int
    key_value_width: int = 0
    attends: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of one transformer.

    Attributes:
        layers: blocks; of an encoder-decoder, those of the decoder.
        d_model: E.
        d_ff: F.
        heads: H, of queries.
        kv_heads: K, of keys and values: 1 is multiquery, H is multihead.
        head_dim: Q.
        ffn_matrices: of a feed-forward layer: 2, or 3 where it is gated.
        parallel: attention and feed-forward layer side by side, behind one norm.
        vocabulary: V, or classes.
        tied: the embedding is the output projection too.
        encoder_layers: blocks of the encoder, in front of a decoder with cross-attention.
        patch_width: numbers of a patch, for models of images; they have no embedding of tokens.
        convolution: whether a block is a Conformer's: a half feed-forward layer, attention, a
            convolution between two pointwise kernels, another half feed-forward layer.
        naming: what kernels are called: as gossamer's Llama, or as its OPT and ViT.
        nominal_parameters: that the model is named after and its MFU counts; None: `parameters`.
        source: where the sizes are found.

    Raises:
        ValueError: a size is not positive, or key-value heads do not divide heads.
    """

    name: str
    layers: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    ffn_matrices: int = 3
    parallel: bool = False
    tied: bool = True
    encoder_layers: int = 0
    patch_width: int = 0
    convolution: bool = False
    naming: Literal["llama", "opt"] = "llama"
    nominal_parameters: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        sizes = ("layers", "d_model", "d_ff", "heads", "kv_heads", "head_dim", "vocabulary")
        for field in sizes:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} of {self.name} needs 1 or more, got {self!r}.")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name} needs heads that its key-value heads divide, got {self.heads} and "
                f"{self.kv_heads}."
            )
        if self.ffn_matrices not in (2, 3) or (self.naming == "opt" and self.ffn_matrices == 3):
            raise ValueError(
                f"ffn_matrices of {self.name} needs 2, or 3 with gates, which models named as OPT "
                f"do not have; got {self.ffn_matrices}."
            )
        if min(self.encoder_layers, self.patch_width, self.nominal_parameters or 1) < 0:
            raise ValueError(f"{self.name} has a negative size: {self!r}.")
        if self.parallel and (self.encoder_layers or self.convolution):
            raise ValueError(
                f"{self.name} cannot be parallel: cross-attention and convolutions come in turn."
            )

    @functools.cached_property
    def kernels(self) -> Kernels:
        """All kernels that tokens are multiplied by, as gossamer's own models name them.

        Norms, biases, tables of positions and depthwise convolutions are not among them.
        """
        found = dict(self.end_kernels)
        for stack, layers in self.stacks.items():
            block = self.block_kernels(stack)
            for layer in range(layers):
                found |= {f"{stack}.{layer}.{path}": kernel for path, kernel in block.items()}
        return found

    @property
    def stacks(self) -> dict[str, int]:
        """Blocks of each stack, by its path."""
        if self.encoder_layers:
            return {"encoder.layers": self.encoder_layers, "decoder.layers": self.layers}
        return {"layers": self.layers}

    def stack(self, phase: Phase) -> str:
        """The stack that a phase runs: an encoder reads the prompt, a decoder generates."""
        return next(iter(self.stacks)) if phase == "prefill" else list(self.stacks)[-1]

    @property
    def generates(self) -> bool:
        """Whether it continues a text; what reads patches does not."""
        return not self.patch_width

    @property
    def end_kernels(self) -> Kernels:
        """Kernels outside the blocks."""
        if self.patch_width:
            return {
                "patch_embedding.kernel": (self.patch_width, self.d_model),
                "head.kernel": (self.d_model, self.vocabulary),
            }
        end = (self.d_model, self.vocabulary)
        return {"embedding.kernel": end} | ({} if self.tied else {"output.kernel": end})

    @property
    def output_path(self) -> str:
        """The path of the kernel that gives scores of the vocabulary or of classes."""
        return (
            "embedding.kernel" if self.tied and not self.patch_width else list(self.end_kernels)[-1]
        )

    def block_kernels(self, stack: str) -> Kernels:
        """Kernels of one block, by their path inside it."""
        e = self.d_model
        found = self._attention("attention")
        if stack.startswith("decoder"):
            found |= self._attention("cross_attention")
        if not self.convolution:
            return found | self._feed_forward("mlp")
        return (
            self._feed_forward("mlp_before")
            | found
            | {"convolution.in_proj.kernel": (e, 2 * e), "convolution.out_proj.kernel": (e, e)}
            | self._feed_forward("mlp_after")
        )

    def sublayers(self, phase: Phase) -> tuple[Sublayer, ...]:
        """What a block of a phase does between additions to the residual stream.

        Keys and values of cross-attention are there before decoding begins.
        """
        attended, keys = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        wide = (self.ffn_matrices - 1) * self.d_ff
        if self.parallel:
            return (
                Sublayer(
                    in_width=attended + wide,
                    out_width=attended + self.d_ff,
                    key_value_width=keys,
                    attends=True,
                ),
            )
        attention = Sublayer(
            in_width=attended, out_width=attended, key_value_width=keys, attends=True
        )
        feed_forward = Sublayer(in_width=wide, out_width=self.d_ff)
        if self.convolution:
            convolution = Sublayer(in_width=2 * self.d_model, out_width=self.d_model)
            return (feed_forward, attention, convolution, feed_forward)
        if self.encoder_layers and phase == "decode":
            cross = dataclasses.replace(attention, key_value_width=0)
            return (attention, cross, feed_forward)
        return (attention, feed_forward)

    @property
    def parameters(self) -> int:
        """Elements of all `kernels`."""
        return _elements(self.end_kernels) + sum(
            layers * _elements(self.block_kernels(stack)) for stack, layers in self.stacks.items()
        )

    @property
    def counted_parameters(self) -> float:
        """N of the MFU: nominal parameters, so that padding is no achievement."""
        return self.nominal_parameters or float(self.parameters)

    @property
    def cache_elements_per_token(self) -> int:
        """Keys and values that a sequence keeps for a token, of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def with_heads(self, heads: int) -> "ModelShape":
        """The same model with heads of padding, so that they divide over more chips.

        Raises:
            ValueError: these are fewer than it has.

        Example:
            >>> palm = find_shape("palm-540b")
            >>> round((palm.with_heads(64).parameters - palm.parameters) / 1e9, 1)
            17.8
        """
        if heads < self.heads:
            raise ValueError(f"{self.name} has {self.heads} heads, and padding makes it no less.")
        multihead = self.kv_heads == self.heads
        return dataclasses.replace(
            self,
            heads=heads,
            kv_heads=heads if multihead else self.kv_heads,
            nominal_parameters=self.counted_parameters,
        )

    def _attention(self, name: str) -> dict[str, tuple[int, int]]:
        e, queries, keys = (
            self.d_model,
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
        )
        last = "out_proj" if self.naming == "opt" else "o_proj"
        return {
            f"{name}.q_proj.kernel": (e, queries),
            f"{name}.k_proj.kernel": (e, keys),
            f"{name}.v_proj.kernel": (e, keys),
            f"{name}.{last}.kernel": (queries, e),
        }

    def _feed_forward(self, name: str) -> dict[str, tuple[int, int]]:
        inwards, outwards = (self.d_model, self.d_ff), (self.d_ff, self.d_model)
        if self.naming == "opt":
            return {f"{name}.fc1.kernel": inwards, f"{name}.fc2.kernel": outwards}
        gate = {f"{name}.gate_proj.kernel": inwards} if self.ffn_matrices == 3 else {}
        return gate | {f"{name}.up_proj.kernel": inwards, f"{name}.down_proj.kernel": outwards}


def read_shapes(file: str | pathlib.Path) -> dict[str, ModelShape]:
    """Reads a YAML file of models: a mapping from each name to the fields of `ModelShape`.

    Raises:
        ValueError: the file cannot be read, or a field is unknown, missing or malformed; all faults
            are named.
    """
    return read_named(ModelShape, read_yaml(file, "models"), "models", str(file))


@functools.cache
def builtin_shapes() -> Mapping[str, ModelShape]:
    """The models that are known without a file, by name."""
    return read_named(ModelShape, builtin_yaml("shapes.yaml"), "models", "shapes.yaml")


def find_shape(name: str, more: Mapping[str, ModelShape] | None = None) -> ModelShape:
    """A model's shape by its name.

    Args:
        name: such as `palm-540b`.
        more: models of the user's own, which come before those built in.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> find_shape("palm-540b").parameters / 1e9  # doctest: +ELLIPSIS
        540.35...
    """
    known = {**builtin_shapes(), **(more or {})}
    others = "Others are described in a YAML file, or read off a model's folder."
    return find_known("model", name, known, others)


def _elements(kernels: Kernels) -> int:
    return sum(math.prod(kernel) for kernel in kernels.values())
