r"""How each product of attention is laid on the matrix unit, and what that asks of the chip.

The matrix unit has t x t multipliers. A product is cut into tiles of it, and one of three tensors
stays in the array while the others stream through: the product itself (output-stationary), K or V
(weight-stationary), or Q or the softmax's result (input-stationary). Sizes are of one head with R
rows of queries at a time; :math:`\lceil N/t \rceil` is written n, :math:`\lceil d/t \rceil` c and
the number of row tiles r. A tensor kept on the chip is read from memory once, another as often as:

======  ==========  ==========  ==========
tensor  output      weight      input
======  ==========  ==========  ==========
Q       n           n           1
K       n           r           n
V       n           r           n
scores  1 written, c read       1 and 1
======  ==========  ==========  ==========

The output is written once: its partial sums stay in the array or in the buffer. What the buffer
cannot hold lives in memory: that share of what the array takes from the buffer and gives to it is
traffic.

Source: closed forms that reproduce the corrected outputs of FLAT's own code, which the artifact of
FuseMax (Nayak et al., MICRO 2024, arXiv 2406.10491) lists, for output- and weight-stationary
mappings. Not from there: input-stationary ones, none of which FLAT chose, follow by the same
reasoning; and a stationary operand enters the array row by row while the one before is used, so
fewer than t vectors streamed past it leave the array waiting. The time until the first tiles have
arrived, at most 0.5 % in what FLAT's code gives, is left out.
"""

import dataclasses
import math
from typing import Literal, TypeAlias

import numpy as np

from gossamer.planning.attention_footprints import Granularity, check_rows, score_bytes
from gossamer.planning.attention_shapes import AttentionShape

Stationarity: TypeAlias = Literal["output", "weight", "input"]
STATIONARITIES: tuple[Stationarity, ...] = ("output", "weight", "input")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorMapping:
    """How one of both products is computed.

    Attributes:
        rows: R, queries of a tile.
        stationarity: what stays in the array.
        on_chip: the inputs that are kept in the buffer, double-buffered, while they are needed: of
            L some of Q and K, of A none or V.
    """

    rows: int
    stationarity: Stationarity
    on_chip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.stationarity not in STATIONARITIES:
            raise ValueError(
                f"A stationarity is one of {', '.join(STATIONARITIES)}, got {self.stationarity!r}."
            )
        if unknown := set(self.on_chip) - {"Q", "K", "V"}:
            raise ValueError(f"Inputs on the chip are among Q, K and V, got {sorted(unknown)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionMapping:
    """How both products are computed.

    Attributes:
        granularity: how much of the scores is made before it is used.
        scores_on_chip: whether they stay on the chip: then L and A are fused.
        logit: of L, queries with keys.
        attend: of A, the softmax with values.
    """

    granularity: Granularity
    scores_on_chip: bool
    logit: OperatorMapping
    attend: OperatorMapping

    def check(self, shape: AttentionShape) -> None:
        """Refuses what one loop over both products cannot do.

        Raises:
            ValueError: the rows of both differ, or do not fit the granularity or the shape.
        """
        if self.logit.rows != self.attend.rows:
            raise ValueError(
                f"One loop runs over the rows of L and A: they cannot have tiles of "
                f"{self.logit.rows} and {self.attend.rows} rows."
            )
        check_rows(shape, self.granularity, self.logit.rows)

    def resident_score_bytes(self, shape: AttentionShape) -> int:
        """Bytes of a tile of scores on the chip."""
        if not self.scores_on_chip:
            return 0
        rows = self.logit.rows if self.granularity == "R" else shape.sequence
        return score_bytes(shape, self.granularity, rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """What a product asks of the chip, for all heads and sequences; arrays for many mappings.

    Attributes:
        array_stretch: seconds over those that the full array would take.
        footprint_bytes: of the buffer, but for the scores.
        memory_bytes: of traffic if the footprint fits.
        spilled_bytes: of more traffic if none of it did.
        array_bytes: between buffer and array.
    """

    array_stretch: float | np.ndarray
    footprint_bytes: float | np.ndarray
    memory_bytes: float | np.ndarray
    spilled_bytes: float | np.ndarray
    array_bytes: float | np.ndarray


def logit_demand(
    shape: AttentionShape, array_size: int, mapping: OperatorMapping, *, scores_on_chip: bool
) -> Demand:
    """What L asks for, with an array of `array_size` x `array_size`."""
    counts = _counts(shape, array_size, mapping)
    laid = {
        "output": _logit_by_output,
        "weight": _logit_by_weight,
        "input": _logit_by_input,
    }[mapping.stationarity](counts, scores_on_chip)
    return _demand(shape, counts, laid, written=0 if scores_on_chip else counts.square)


def attend_demand(
    shape: AttentionShape, array_size: int, mapping: OperatorMapping, *, scores_on_chip: bool
) -> Demand:
    """What A asks for, with an array of `array_size` x `array_size`."""
    counts = _counts(shape, array_size, mapping)
    laid = {
        "output": _attend_by_output,
        "weight": _attend_by_weight,
        "input": _attend_by_input,
    }[mapping.stationarity](counts, scores_on_chip)
    return _demand(shape, counts, laid, written=counts.tensor)


def stretch(size: int, array_size: int) -> float:
    """How much longer a dimension takes that does not fill the array's side.

    Example:
        >>> stretch(64, 256), stretch(384, 256), stretch(512, 256)
        (4.0, 1.3333333333333333, 1.0)
    """
    return math.ceil(size / array_size) * array_size / size


def _waiting(streamed: int, array_size: int) -> float:
    """How much longer it takes when few vectors stream past each stationary tile."""
    return max(1.0, array_size / streamed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Counts:
    """Sizes of one head in elements, and how often loops go round."""

    on_chip: tuple[str, ...]
    array: int  # t
    rows: int  # R
    sequence: int  # N
    head_dim: int  # d
    tensor: int  # N d
    square: int  # N^2
    side: int  # n, tiles of the array along the keys
    passes: int  # c, along the head
    tiles: int  # r, row tiles
    blocks: int  # n again, along the queries; more where row tiles do not fill the array

    def kept(self, name: str, staged: int, otherwise: int) -> int:
        """Elements of the buffer that an input takes."""
        return staged if name in self.on_chip else otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Laid:
    """One product of one head on the array, in elements."""

    array_stretch: float
    footprint: int
    reads: dict[str, int]  # elements from memory of each input that is not kept on the chip
    spilled: int
    moved: int


def _counts(shape: AttentionShape, array: int, mapping: OperatorMapping) -> _Counts:
    rows, sequence = mapping.rows, shape.sequence
    tiles = math.ceil(sequence / rows)
    return _Counts(
        on_chip=mapping.on_chip,
        array=array,
        rows=rows,
        sequence=sequence,
        head_dim=shape.head_dim,
        tensor=sequence * shape.head_dim,
        square=sequence**2,
        side=math.ceil(sequence / array),
        passes=math.ceil(shape.head_dim / array),
        tiles=tiles,
        blocks=tiles * math.ceil(rows / array),
    )


def _logit_by_output(c: _Counts, on_chip: bool) -> _Laid:
    """Keys x queries in the array; both stream through along the head."""
    queries, keys = c.tensor * c.side, c.tensor * c.blocks
    return _Laid(
        array_stretch=stretch(c.sequence, c.array) * stretch(c.rows, c.array),
        footprint=c.array**2
        + 2 * c.array * c.head_dim
        + c.kept("Q", 2 * c.rows * c.head_dim, 0)
        + c.kept("K", 2 * c.tensor, 0),
        reads={"Q": queries, "K": keys},
        # FLAT's code counts one of both streams here, whether or not it comes from the buffer.
        spilled=keys + (c.square if on_chip else 0),
        moved=queries + keys + c.square,
    )


def _logit_by_weight(c: _Counts, on_chip: bool) -> _Laid:
    """Keys x head in the array; queries stream through and partial sums come and go."""
    streamed = c.tensor * c.side + 2 * c.square * c.passes
    tile = 2 * c.array**2
    return _Laid(
        array_stretch=stretch(c.head_dim, c.array)
        * stretch(c.sequence, c.array)
        * _waiting(c.rows, c.array),
        footprint=c.kept("Q", 2 * c.rows * c.head_dim, tile)
        + c.kept("K", 2 * c.tensor, tile)
        + (0 if on_chip else 2 * c.rows * c.array),
        reads={"Q": c.tensor * c.side, "K": c.tensor * c.tiles},
        spilled=streamed,
        moved=streamed + c.tensor * c.tiles,
    )


def _logit_by_input(c: _Counts, on_chip: bool) -> _Laid:
    """Queries x head in the array; keys stream through and partial sums come and go."""
    streamed = c.tensor * c.blocks + 2 * c.square * c.passes
    tile = 2 * c.array**2
    return _Laid(
        array_stretch=stretch(c.head_dim, c.array)
        * stretch(c.rows, c.array)
        * _waiting(c.sequence, c.array),
        footprint=c.kept("Q", 2 * c.rows * c.head_dim, tile)
        + c.kept("K", 2 * c.tensor, tile)
        + (0 if on_chip else 2 * c.sequence * c.array),
        reads={"Q": c.tensor, "K": c.tensor * c.blocks},
        spilled=streamed,
        moved=streamed + c.tensor,
    )


def _attend_by_output(c: _Counts, on_chip: bool) -> _Laid:
    """Head x queries in the array; scores and values stream through along the keys."""
    scores, values = c.square * c.passes, c.tensor * c.blocks
    return _Laid(
        array_stretch=stretch(c.head_dim, c.array) * stretch(c.rows, c.array),
        footprint=2 * c.array * c.head_dim
        + c.kept("V", 2 * c.tensor, 0)
        + (0 if on_chip else 2 * c.array**2),
        reads={"V": values} | ({} if on_chip else {"scores": scores}),
        spilled=(scores if on_chip else 0) + c.kept("V", values, 0),
        moved=scores + values + c.tensor,
    )


def _attend_by_weight(c: _Counts, on_chip: bool) -> _Laid:
    """Keys x head in the array; scores stream through and partial sums come and go."""
    scores = c.square * c.passes
    streamed = scores + 2 * c.tensor * c.side
    tile = 2 * c.array**2
    return _Laid(
        array_stretch=stretch(c.head_dim, c.array)
        * stretch(c.sequence, c.array)
        * _waiting(c.rows, c.array),
        footprint=c.kept("V", 2 * c.tensor, tile) + 2 * c.rows * c.array + (0 if on_chip else tile),
        reads={"V": c.tensor * c.tiles} | ({} if on_chip else {"scores": scores}),
        spilled=streamed,
        moved=streamed + c.tensor * c.tiles,
    )


def _attend_by_input(c: _Counts, on_chip: bool) -> _Laid:
    """Keys x queries in the array, which are scores; values stream through along the head."""
    streamed = c.tensor * c.blocks + 2 * c.tensor * c.side
    tile = 2 * c.array**2
    return _Laid(
        array_stretch=stretch(c.sequence, c.array)
        * stretch(c.rows, c.array)
        * _waiting(c.head_dim, c.array),
        footprint=c.kept("V", 2 * c.tensor, tile)
        + 2 * c.array * c.head_dim
        + (0 if on_chip else tile),
        reads={"V": c.tensor * c.blocks} | ({} if on_chip else {"scores": c.square}),
        spilled=streamed + (c.square if on_chip else 0),
        moved=streamed + c.square,
    )


def _demand(shape: AttentionShape, counts: _Counts, laid: _Laid, *, written: int) -> Demand:
    """Of elements of one head, bytes of all; the footprint stays that of one."""
    read = sum(counts.kept(name, counts.tensor, often) for name, often in laid.reads.items())
    everything = shape.batch * shape.heads * shape.element_bytes
    return Demand(
        array_stretch=laid.array_stretch,
        footprint_bytes=laid.footprint * shape.element_bytes,
        memory_bytes=(read + written) * everything,
        spilled_bytes=laid.spilled * everything,
        array_bytes=laid.moved * everything,
    )
