"""The cells of the grid: what is done to a model's kernels, and what it came to."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gossamer.compression.interplay.orders import ARROWS, ORDERS, Order
from gossamer.compression.interplay.threshold import Losses, perplexity_of
from gossamer.compression.methods import MethodName

PruningMethod: TypeAlias = Literal["magnitude", "wanda", "sparsegpt"]
PRUNING_METHODS: tuple[PruningMethod, ...] = get_args(PruningMethod)

Numerics: TypeAlias = Literal["weights", "weights-and-activations"]
"""What is quantized: weights alone, or what they are multiplied by as well."""

NUMERICS: tuple[Numerics, ...] = get_args(Numerics)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What is done to the kernels of all blocks; embedding, output and norms are left alone.

    Attributes:
        format: a name in `FORMATS`; None leaves floats.
        pattern: a name in `PATTERNS`; None prunes nothing.
        method: how weights are chosen and rounded; None for the dense model.
        order: of a cell that prunes and rounds; None for one that does not do both.
        activations: whether inputs of the kernels are quantized too, in the same format.
    """

    format: str | None = None
    pattern: str | None = None
    method: MethodName | None = None
    order: Order | None = None
    activations: bool = False

    @property
    def combined(self) -> bool:
        """Whether it prunes and rounds."""
        return self.order is not None

    @property
    def label(self) -> str:
        """The cell in words: "2:4, INT8, wanda, S→Q"."""
        method = None if self.method == "rtn" else self.method
        arrow = ARROWS[self.order] if self.order else None
        inputs = "activations too" if self.activations else None
        parts = [part for part in (self.pattern, self.format, method, arrow, inputs) if part]
        return ", ".join(parts) or "dense"

    def singles(self) -> "tuple[Cell, Cell]":
        """The sparse and the quantized cell whose sum a combined one is held against.

        Each rounds or prunes by the method that the combined one uses: a solve that compensates
        is held against solves that compensate.
        """
        assert self.method is not None
        rounding: MethodName = "sparsegpt" if self.method == "sparsegpt" else "rtn"
        sparse = Cell(pattern=self.pattern, method=self.method)
        quantized = Cell(format=self.format, method=rounding, activations=self.activations)
        return sparse, quantized


DENSE = Cell()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a cell came to.

    Attributes:
        cell: what was done.
        losses: mean negative log-likelihood of each window, in nats a prediction.
        bits_per_weight: of the kernels that took part, scales and positions included, as packed.
        model_bytes: of all tensors, as packed; those that take no part are float32.
        weight_error: L2 norm of the change of those kernels over their own.
        depth_relative: L2 norm of the change of the hidden states over theirs in the dense model:
            behind the embedding, then behind each block.
        depth_absolute: root of the mean over tokens of the squared L2 norm of that change.
        seconds: wall time.
    """

    cell: Cell
    losses: tuple[float, ...]
    bits_per_weight: float
    model_bytes: int
    weight_error: float
    depth_relative: tuple[float, ...]
    depth_absolute: tuple[float, ...]
    seconds: float

    @property
    def window_losses(self) -> Losses:
        """The losses as an array."""
        return np.asarray(self.losses, np.float64)

    @property
    def perplexity(self) -> float:
        """Over all windows; infinite where it is beyond what a float holds."""
        return math.inf if np.mean(self.losses) > 700 else perplexity_of(self.window_losses)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it back equal."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Result":
        """Reads what `to_dict` made and JSON has kept, whose lists are tuples here.

        Raises:
            KeyError: the cell is missing.
            TypeError: another field is missing or unknown.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        values["cell"] = Cell(**data["cell"])
        return cls(**values)


def grid(
    formats: Sequence[str],
    patterns: Sequence[str],
    *,
    orders: Sequence[Order] = ORDERS,
    methods: Sequence[PruningMethod] = PRUNING_METHODS,
    numerics: Sequence[Numerics] = NUMERICS,
) -> list[Cell]:
    """All cells of a grid, the most telling first, each behind the single ones it is held against.

    Weights alone come first, by magnitude, by Wanda, by SparseGPT; then weights and activations by
    magnitude. SparseGPT prunes and rounds in one sweep, so that there is only S->Q.

    Example:
        >>> cells = grid(["INT8"], ["2:4"], methods=["magnitude"], orders=["sq"],
        ...              numerics=["weights"])
        >>> tuple(cell.label for cell in cells)
        ('dense', 'INT8', '2:4, magnitude', '2:4, INT8, magnitude, S→Q')

    Raises:
        ValueError: no cell combines anything.
    """
    stages: list[tuple[bool, PruningMethod]] = []
    if "weights" in numerics:
        stages.extend((False, method) for method in PRUNING_METHODS if method in methods)
    if "weights-and-activations" in numerics and "magnitude" in methods:
        stages.append((True, "magnitude"))
    cells = [DENSE]
    for activations, method in stages:
        combined = [
            Cell(format=f, pattern=p, method=method, order=order, activations=activations)
            for p in patterns
            for f in formats
            for order in orders
            if not (method == "sparsegpt" and order == "qs")
        ]
        singles = [single for cell in combined for single in reversed(cell.singles())]
        cells += [*singles, *combined]
    if not any(cell.combined for cell in cells):
        raise ValueError(
            f"No cell combines sparsity and quantization: methods {list(methods)}, orders "
            f"{list(orders)}, quantizing {list(numerics)}. SparseGPT has the order sq only, and "
            "activations are quantized with magnitude only."
        )
    return list(dict.fromkeys(cells))
