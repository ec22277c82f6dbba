"""What attention holds on the chip at each of FLAT's granularities, and in memory over blocks.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, section 4 and table 1.
"""

from typing import Literal, TypeAlias

from gossamer.planning.attention_shapes import AttentionShape

Granularity: TypeAlias = Literal["M", "B", "H", "R"]
"""How much of the intermediate is made before it is used: that of the whole batch (M), of one
sequence (B), of one head (H), or of a few rows of one head (R). A row is one query with all keys:
softmax needs it whole."""


def heads_at_once(shape: AttentionShape, granularity: Granularity) -> int:
    """How many heads, of however many sequences, a tile of the intermediate spans."""
    return {"M": shape.batch * shape.heads, "B": shape.heads, "H": 1, "R": 1}[granularity]


def check_rows(shape: AttentionShape, granularity: Granularity, rows: int) -> None:
    """Refuses a row tile that is not of the granularity.

    Raises:
        ValueError: rows are fewer than 1 or more than there are, or a granularity other than R is
            given another tile than all of them.
    """
    if not 1 <= rows <= shape.sequence:
        raise ValueError(f"A row tile needs 1 to {shape.sequence} rows, got {rows}.")
    if granularity != "R" and rows != shape.sequence:
        raise ValueError(
            f"At granularity {granularity} a tile has all {shape.sequence} rows, got {rows}; "
            "R has tiles of fewer."
        )


def score_bytes(shape: AttentionShape, granularity: Granularity, rows: int) -> int:
    """Bytes of one tile of the intermediate."""
    heads = heads_at_once(shape, granularity)
    return heads * rows * shape.sequence * shape.element_bytes


def live_elements(shape: AttentionShape, granularity: Granularity, rows: int | None = None) -> int:
    """Elements on the chip while both products are fused, all double-buffered but the scores.

    ================ ====================
    M                8 B D N + B H N^2
    B                8 D N + H N^2
    H                8 N d + N^2
    R                4 R d + 4 N d + R N
    ================ ====================

    Args:
        shape: sizes.
        granularity: of the fusion.
        rows: R, of granularity R; else None, all of them.

    Raises:
        ValueError: the rows are missing or impossible.

    Example:
        >>> shape = AttentionShape(batch=64, sequence=512, heads=12, head_dim=64)
        >>> live_elements(shape, "H") * shape.element_bytes / 2**20
        1.0

    Source: Kao et al. 2023, table 1.
    """
    heads = heads_at_once(shape, granularity)
    if granularity == "R" and rows is None:
        raise ValueError("Granularity R needs the number of rows in a tile.")
    rows = shape.sequence if rows is None else rows
    check_rows(shape, granularity, rows)
    sequence, head_dim = shape.sequence, shape.head_dim
    return heads * (4 * rows * head_dim + 4 * sequence * head_dim + rows * sequence)


def activation_bytes(shape: AttentionShape, *, blocks: int, fused: bool) -> int:
    """Bytes in memory of all blocks' queries, keys, values, outputs and, unless fused, scores.

    The scores are what grows with the square of the sequence.

    Args:
        shape: sizes of one block's attention.
        blocks: whose activations are kept.
        fused: whether the scores never reach memory.

    Raises:
        ValueError: there is no block.

    Example:
        >>> shape = AttentionShape(batch=1, sequence=8192, heads=12, head_dim=64)
        >>> for fused in (False, True):
        ...     print(round(activation_bytes(shape, blocks=2, fused=fused) / 1e9, 1), "GB")
        3.3 GB
        0.1 GB
    """
    if blocks < 1:
        raise ValueError(f"A stack needs 1 block or more, got {blocks}.")
    scores = 0 if fused else shape.scores * shape.element_bytes
    return blocks * (shape.compulsory_bytes + scores)
