"""What all models share: blocks in a row between two ends, and how inputs go through them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

Flow: TypeAlias = Any
"""What goes from block to block: a pytree of arrays that all have the batch in front."""

_LEAVES = {"kernel": "weight", "scale": "weight", "table": "weight", "bias": "bias"}


@runtime_checkable
class Fusible(Protocol):
    """A layer with projections that share an input."""

    def fuse(self) -> None:
        """Makes one product of them, where their kernels are stored alike."""


Sublayer: TypeAlias = Literal["attention", "cross_attention", "mlp"]


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
    """One of a model's blocks, which take what the one before gives.

    Attributes:
        RESCALABLE: inputs of projections that can be rescaled; ask `rescalable`.
        SCORE_PROJECTIONS: projections of queries and keys.
    """

    RESCALABLE: ClassVar[tuple[Rescalable, ...]]
    # Cross-attention's paths end like this too.
    SCORE_PROJECTIONS: ClassVar[tuple[str, ...]] = ("attention.q_proj", "attention.k_proj")

    @classmethod
    def rescalable(cls, config: Any) -> tuple[Rescalable, ...]:
        """The inputs of projections that can be rescaled in a model of this configuration."""
        del config
        return cls.RESCALABLE

    def fuse(self) -> None:
        """Makes one product of those that share an input, where their kernels are stored alike.

        For running only: the parameters get other paths.
        """
        for layer in tuple(vars(self).values()):
            if isinstance(layer, Fusible):
                layer.fuse()

    def through(self, flow: Flow) -> Flow:
        """Puts whole inputs through: what comes behind this block, in the form of what came."""
        raise NotImplementedError

    def real_tokens(self, path: str, flow: Flow) -> Bool[Array, "B T"] | None:
        """Which of the tokens that a kernel is multiplied by are no padding; None: all.

        Args:
            path: of the kernel, or of its projection, within the block.
            flow: what enters the block.
        """
        del path, flow
        return None

    def sublayer(
        self, which: Sublayer, x: Float[Array, "B T D"], flow: Flow
    ) -> Float[Array, "B T D"]:
        """What one layer makes of normalized input, beside the rest of what enters the block."""
        raise NotImplementedError


class Model(nnx.Module):
    """A model of any family.

    Attributes:
        HF_NAMES: our path of a module -> that of Hugging Face; `*` is a block's number.
        config: its sizes, of its family's class.
    """

    HF_NAMES: ClassVar[dict[str, str]]

    config: Any

    def __init__(self, config: Any, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

    @classmethod
    def hf_names(cls, config: Any) -> dict[str, str]:
        """`HF_NAMES`, where names do not hang on the config."""
        del config
        return cls.HF_NAMES

    @classmethod
    def hf_shapes(cls, config: Any) -> dict[str, tuple[int, ...]]:
        """Path -> shape at Hugging Face, where it is neither ours nor, for a kernel, its transpose.

        The elements are the same in the same order.
        """
        del config
        return {}

    @classmethod
    def block_class(cls, path: str) -> type[Block]:
        """The class of the block with this path."""
        raise NotImplementedError

    def set_blocks(self, blocks: Sequence[Block]) -> None:
        """Takes all blocks, in the order of the config's `blocks`."""
        raise NotImplementedError

    def begin(self, inputs: Any) -> Flow:
        """What enters the first block."""
        raise NotImplementedError


def numbered(stack: str, count: int) -> tuple[str, ...]:
    """Paths of blocks.

    Example:
        >>> numbered("encoder.layers", 2)
        ('encoder.layers.0', 'encoder.layers.1')
    """
    return tuple(f"{stack}.{index}" for index in range(count))


def rows(flow: Flow, start: int, stop: int) -> Flow:
    """Some of a batch."""
    return jax.tree.map(lambda leaf: leaf[start:stop], flow)


def hf_key(names: dict[str, str], path: str) -> str:
    """Translates a parameter's path by a family's table of module names.

    A name that ends in `.` is whole: nothing is put behind it.

    Raises:
        ValueError: the table lacks a part of the path.
    """
    *modules, leaf = path.split(".")
    where = ".".join("*" if part.isdigit() else part for part in modules)
    if where not in names or leaf not in _LEAVES:
        raise ValueError(f"{path!r} is no parameter of this family; modules: {list(names)}.")
    index = next((part for part in modules if part.isdigit()), "")
    name = names[where].replace("*", index)
    return name.removesuffix(".") if name.endswith(".") else f"{name}.{_LEAVES[leaf]}"
