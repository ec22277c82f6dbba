"""Pairs of texts as rows of tokens, several pairs in a row."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from gossamer.data.pairs import Pair
from gossamer.data.tokenizers import Tokenizer

_Numbers: TypeAlias = Any  # numpy's, or on their way from there to a device

PairTokens: TypeAlias = tuple[list[int], list[int]]
"""Of a source and its target, without those that begin and end them."""


class PairRows(NamedTuple):
    """Rows of several pairs of texts each, one behind the other.

    Attributes:
        source: tokens of the sources.
        target: what the decoder is given: each target behind the token that begins it.
        labels: what it is to predict: each target with the token that ends it.
        source_segments: the number of the pair within the row, from 1 on; 0 is padding.
        target_segments: the same of target and labels.
    """

    source: Int[_Numbers, "*batch S"]
    target: Int[_Numbers, "*batch T"]
    labels: Int[_Numbers, "*batch T"]
    source_segments: Int[_Numbers, "*batch S"]
    target_segments: Int[_Numbers, "*batch T"]


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[PairTokens]:
    """The tokens of both sides of each pair."""
    sources, targets = (
        tokenizer.encode_all([getattr(pair, side) for pair in pairs])
        for side in ("source", "target")
    )
    return list(zip(sources, targets, strict=True))


def pack_pairs(pairs: Sequence[PairTokens], length: int, *, start_id: int, end_id: int) -> PairRows:
    """Lays pairs behind each other, in their order, in as few rows as that order allows.

    Args:
        pairs: tokens; each side shorter than `length`.
        length: of a row, on either side.
        start_id: put in front of each target that the decoder is given; it pads too.
        end_id: put behind every source and every target to be predicted.

    Example:
        >>> rows = pack_pairs([([5], [6, 7]), ([8], [9])], 5, start_id=0, end_id=1)
        >>> print(*rows.source[0], "to", *rows.labels[0], "behind", *rows.target[0])
        5 1 8 1 0 to 6 7 1 9 1 behind 0 6 7 0 9
        >>> print(*rows.source_segments[0], "and", *rows.target_segments[0])
        1 1 2 2 0 and 1 1 1 2 2

    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.1.2 packs pairs alike.
    """
    places = _places(pairs, length)
    shape = (places[-1][0] + 1, length)
    source, target, labels = (np.full(shape, start_id, np.int32) for _ in range(3))
    source_segments, target_segments = (np.zeros(shape, np.int32) for _ in range(2))
    for (read, written), (row, segment, left, right) in zip(pairs, places, strict=True):
        source_end, target_end = left + len(read) + 1, right + len(written) + 1
        source[row, left:source_end] = [*read, end_id]
        target[row, right:target_end] = [start_id, *written]
        labels[row, right:target_end] = [*written, end_id]
        source_segments[row, left:source_end] = segment
        target_segments[row, right:target_end] = segment
    return PairRows(source, target, labels, source_segments, target_segments)


def _places(pairs: Sequence[PairTokens], length: int) -> list[tuple[int, int, int, int]]:
    """Row, number within the row, and where source and target begin, of each pair."""
    row, segment, left, right = 0, 0, 0, 0
    places = []
    for source, target in pairs:
        more_left, more_right = len(source) + 1, len(target) + 1
        if left + more_left > length or right + more_right > length:
            row, segment, left, right = row + 1, 0, 0, 0
        segment += 1
        places.append((row, segment, left, right))
        left, right = left + more_left, right + more_right
    return places
