"""What a method of one-shot compression is: its settings, and what it does to one kernel."""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from flax import nnx
from jaxtyping import Array, Bool, Float

from gossamer.compression.observe import InputStatistics
from gossamer.models import Block, Flow, Rescalable
from gossamer.nn.linear import Linear
from gossamer.quantization import Codes
from gossamer.recipe import Rule


class Solved(NamedTuple):
    """A compressed kernel; `codes.decode()` is `values`, bit for bit, where there are codes.

    Attributes:
        values: what the kernel multiplies by from now on.
        mask: True where a weight is kept; None where none was pruned.
        codes: None for float values.
        damping: what was added to the diagonal of the Hessian, as a share of its mean; None for
            methods that solve nothing.
    """

    values: Float[Array, "in out"]
    mask: Bool[Array, "in out"] | None = None
    codes: Codes | None = None
    damping: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One kernel to compress.

    Attributes:
        path: its name; what is drawn at random depends on it and on `seed`.
        kernel: the values, finite; rescaled already where the method rescales inputs.
        rule: what the recipe asks for.
        gram: sum of the outer products of its inputs; None for methods that need none.
        seed: for methods that draw.
        feeds_scores: a projection of queries or keys.
    """

    path: str
    kernel: Float[Array, "in out"]
    rule: Rule
    gram: Float[Array, "in in"] | None = None
    seed: int = 0
    feeds_scores: bool = False

    @property
    def hessian(self) -> Float[Array, "in in"]:
        """The Gram matrix, for methods that cannot do without."""
        assert self.gram is not None
        return self.gram


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedBlock:
    """A dense block and what its kernels are multiplied by.

    Attributes:
        block: with the uncompressed weights.
        flow: what enters it.
        inputs: kernel's path within the block -> statistics of its inputs.
        rules: kernel's path within the block -> its rule.
    """

    block: Block
    flow: Flow
    inputs: Mapping[str, InputStatistics]
    rules: Mapping[str, Rule]

    def kernel(self, projection: str) -> Float[Array, "in out"]:
        """The kernel of a projection of the block."""
        return linear(self.block, projection).kernel.get_value()


def linear(block: nnx.Module, path: str) -> Linear:
    """A projection of a block."""
    layer = functools.reduce(getattr, path.split("."), block)
    assert isinstance(layer, Linear)
    return layer


Scaling: TypeAlias = tuple[Rescalable, Float[Array, " in"]]
"""An input of a block, and what its channels are divided by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """How weights are chosen and rounded: a frozen dataclass of the method's settings.

    Attributes:
        name: what recipes, reports and the command line call it.
        calibrated: whether it needs the inputs of each kernel.
    """

    name: ClassVar[str]
    calibrated: ClassVar[bool] = True

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)

    def why_not(self, rule: Rule) -> str | None:
        """Why it cannot do what a rule asks for, in words; None if it can."""
        return None

    def rescales(self, pair: Rescalable) -> bool:
        """Whether it rescales such an input."""
        return False

    def scalings(self, block: CalibratedBlock, pairs: Sequence[Rescalable]) -> Sequence[Scaling]:
        """What the inputs of a block are divided by, and its kernels multiplied, beforehand."""
        return ()

    @abc.abstractmethod
    def compress(self, task: Task) -> Solved:
        """Prunes and rounds one kernel."""


def prunes_not(name: str, rule: Rule) -> str | None:
    """The reason of methods that only round; None for a rule that they can follow."""
    if rule.pattern is not None:
        return (
            f"Method {name!r} rounds and does not prune, but the rule has the pattern "
            f"{rule.pattern}; choose sparsegpt, wanda-gptq, obr, wanda, magnitude or random."
        )
    return None


def needs_format(name: str, rule: Rule) -> str | None:
    """The reason of methods whose point is to round; None for a rule that they can follow."""
    if rule.weights is None:
        return f"Method {name!r} rounds weights, but the rule names no format for them."
    return None
