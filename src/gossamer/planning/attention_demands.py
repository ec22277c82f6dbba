r"""What a product of attention asks of the chip: of its array, its buffer and its memory.

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
from typing import Any, TypeAlias

import numpy as np

from gossamer.planning.attention_mappings import Stationarity
from gossamer.planning.attention_shapes import AttentionShape

Numbers: TypeAlias = int | float | np.ndarray


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

    array_stretch: Numbers
    footprint_bytes: Numbers
    memory_bytes: Numbers
    spilled_bytes: Numbers
    array_bytes: Numbers


def logit_demand(
    shape: AttentionShape,
    array_size: int,
    rows: Numbers,
    stationarity: Stationarity,
    kept: tuple[str, ...],
    *,
    scores_on_chip: bool,
) -> Demand:
    """What L asks for.

    Args:
        shape: sizes.
        array_size: t.
        rows: R, queries of a tile; an array for many tiles.
        stationarity: what stays in the array.
        kept: inputs that stay on the chip.
        scores_on_chip: whether its output stays there.
    """
    counts = _counts(shape, array_size, rows, kept)
    laid = {
        "output": _logit_by_output,
        "weight": _logit_by_weight,
        "input": _logit_by_input,
    }[stationarity](counts, scores_on_chip)
    return _demand(shape, counts, laid, written=0 if scores_on_chip else counts.square)


def attend_demand(
    shape: AttentionShape,
    array_size: int,
    rows: Numbers,
    stationarity: Stationarity,
    kept: tuple[str, ...],
    *,
    scores_on_chip: bool,
) -> Demand:
    """What A asks for; arguments as of `logit_demand`, with its input for L's output."""
    counts = _counts(shape, array_size, rows, kept)
    laid = {
        "output": _attend_by_output,
        "weight": _attend_by_weight,
        "input": _attend_by_input,
    }[stationarity](counts, scores_on_chip)
    return _demand(shape, counts, laid, written=counts.tensor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Counts:
    """Sizes of one head in elements, and how often loops go round."""

    on_chip: tuple[str, ...]
    array: int  # t
    rows: Numbers  # R
    sequence: int  # N
    head_dim: int  # d
    tensor: int  # N d
    square: int  # N^2
    side: int  # n, tiles of the array along the keys
    passes: int  # c, along the head
    tiles: Numbers  # r, row tiles
    blocks: Numbers  # n again, along the queries; more where row tiles do not fill the array
    key_fill: float  # how much longer the keys take than if they filled the array's side
    depth_fill: float  # the same of the head
    row_fill: Numbers  # of the rows, tile by tile
    row_wait: Numbers  # how much longer rows take if they stream past stationary tiles

    def kept(self, name: str, staged: Numbers, otherwise: Numbers) -> Numbers:
        """One or the other, as an input is kept on the chip or not."""
        return staged if name in self.on_chip else otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Laid:
    """One product of one head on the array, in elements."""

    array_stretch: Numbers
    footprint: Numbers
    reads: dict[str, Numbers]  # elements from memory of each input that is not kept on the chip
    spilled: Numbers
    moved: Numbers


def _counts(shape: AttentionShape, array: int, rows: Numbers, on_chip: tuple[str, ...]) -> _Counts:
    sequence, head_dim = shape.sequence, shape.head_dim
    whole, rest = sequence // rows, sequence % rows  # the last row tile may be smaller
    blocks = whole * _times(rows, array) + _times(rest, array)
    streamed = whole * np.maximum(rows, array) + (rest > 0) * np.maximum(rest, array)
    side, passes = _times(sequence, array), _times(head_dim, array)
    return _Counts(
        on_chip=on_chip,
        array=array,
        rows=rows,
        sequence=sequence,
        head_dim=head_dim,
        tensor=sequence * head_dim,
        square=sequence**2,
        side=side,
        passes=passes,
        tiles=_times(sequence, rows),
        blocks=blocks,
        key_fill=side * array / sequence,
        depth_fill=passes * array / head_dim,
        row_fill=blocks * array / sequence,
        row_wait=streamed / sequence,
    )


def _times(size: Numbers, part: Numbers) -> Any:
    """How many parts make a size, the last perhaps smaller."""
    return -(-size // part)


def _logit_by_output(c: _Counts, on_chip: bool) -> _Laid:
    """Keys x queries in the array; both stream through along the head."""
    queries, keys = c.tensor * c.side, c.tensor * c.blocks
    return _Laid(
        array_stretch=c.key_fill * c.row_fill,
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
        array_stretch=c.depth_fill * c.key_fill * c.row_wait,
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
        array_stretch=c.depth_fill * c.row_fill * max(1.0, c.array / c.sequence),
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
        array_stretch=c.depth_fill * c.row_fill,
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
        array_stretch=c.depth_fill * c.key_fill * c.row_wait,
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
        array_stretch=c.key_fill * c.row_fill * max(1.0, c.array / c.head_dim),
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
