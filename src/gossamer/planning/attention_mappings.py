"""How both products of attention are laid on the matrix unit and in the buffer: plain values.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419, sections 4 and 5.
"""

import dataclasses
from typing import Literal, TypeAlias

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
