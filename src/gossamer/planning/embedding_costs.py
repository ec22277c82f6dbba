"""Seconds of a step with embeddings: memory, links, and what the dense part hides.

Lookups and updates run on units of their own beside the matrix units, and the network beside both:
a step takes as long as the slowest of them.

Source: Jouppi et al. 2023, arXiv 2304.01433, on SparseCores and on DLRM0's shape, for a
step being the longer of its sparse and dense parts; the seconds of each are a reconstruction.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from gossamer.planning.chips import Chip
from gossamer.planning.collectives import Axis, all_reduce_seconds
from gossamer.planning.embedding_access import lookups_of_shards, unique_rows_of_shards
from gossamer.planning.embeddings import (
    EmbeddingModel,
    Feature,
    Sharding,
    Table,
    check_sharding,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSetting:
    """Where and how a model with embeddings is trained.

    Attributes:
        chip: of the slice.
        axes: chips along each axis of the slice, a torus. Chips that switches join have one, and
            each pair has all links of both.
        batch: samples of each chip in a step.
        wrapped: whether the ends of the axes are joined; without, give the load of links.
        link_load: the largest number of chip pairs whose traffic crosses one link in one direction,
            when every chip sends to every other: of a twisted torus or a mesh, from its topology.
            None computes that of the regular torus.
        id_bytes: of the number of a row.
        deduplicate: whether a chip asks for each row once in a step.
    """

    chip: Chip
    axes: tuple[int, ...]
    batch: int
    wrapped: bool = True
    link_load: float | None = None
    id_bytes: float = 4.0
    deduplicate: bool = True

    def __post_init__(self) -> None:
        if not self.axes or min(self.axes) < 1:
            raise ValueError(f"axes of a slice need a chip or more each, got {self.axes}.")
        if self.batch < 1:
            raise ValueError(f"batch needs to be 1 sample or more, got {self.batch}.")
        if not self.id_bytes > 0:
            raise ValueError(f"id_bytes needs to be positive, got {self.id_bytes}.")
        if self.link_load is not None and not self.link_load > 0:
            raise ValueError(f"link_load needs to be positive, got {self.link_load}.")
        if not self.wrapped and self.chips > 1 and self.link_load is None:
            raise ValueError("A slice without joined ends needs the link_load of its topology.")
        self.chip.check_linked(self.chips)

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(self.axes)

    @property
    def seconds_per_byte(self) -> float:
        """Seconds of an all-to-all for each byte that a chip sends to all others together."""
        if self.chips == 1:
            return 0.0
        if not self.chip.torus_axes:
            return 1 / self.chip.links_bandwidth
        load = _torus_load(self.axes) if self.link_load is None else self.link_load
        return load / (self.chips - 1) / self._link_bandwidth

    def all_to_all_seconds(self, sent_bytes: float) -> float:
        """Seconds until every chip has sent as many bytes, equal parts to all others.

        Source: Jouppi et al. 2023, arXiv 2304.01433, whose embeddings are bound by it; the seconds
        are the bytes of a pair times the pairs on the busiest link, over its bandwidth.
        """
        return sent_bytes * self.seconds_per_byte

    def all_reduce_seconds(self, reduced_bytes: float) -> float:
        """Seconds until every chip has the sum of all chips' bytes."""
        if self.chips == 1:
            return 0.0
        bandwidth = self._link_bandwidth
        if not self.chip.torus_axes:
            away = (self.chips - 1) / self.chips
            return 2 * away * reduced_bytes / self.chip.links_bandwidth
        axes = [Axis(size, wrapped=self.wrapped) for size in self.axes]
        return float(all_reduce_seconds(reduced_bytes, axes, link_bandwidth=bandwidth))

    @property
    def _link_bandwidth(self) -> float:
        assert self.chip.link_bandwidth is not None, "checked where the setting is made"
        return self.chip.link_bandwidth


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards:
    """What each part of a table asks of the chip that has it, in one step.

    Attributes:
        nbytes: of each part, in memory.
        gather_seconds: to read rows forwards, and to read and write them backwards.
        exchange_seconds: of ids, vectors and gradients between its chip and all others.
        reduce_seconds: of an all-reduce by all chips; 0 unless the table is replicated.
    """

    nbytes: float
    gather_seconds: Float64[np.ndarray, " shards"]
    exchange_seconds: Float64[np.ndarray, " shards"]
    reduce_seconds: float = 0.0


def shard_costs(
    table: Table, features: Sequence[Feature], sharding: Sharding, setting: EmbeddingSetting
) -> Shards:
    r"""What each part of a table costs the chip that has it.

    A chip that has distinct rows to look up for each of :math:`n` chips reads them forwards, and
    backwards reads and writes them with the optimizer's bytes. To others it sends vectors, and
    from them it gets ids, and gradients as large as the vectors.

    Args:
        table: that is split.
        features: of it.
        sharding: how it is split.
        setting: chips and samples.

    Returns:
        Parts in the order of their vocabulary, the columns of each together. A replicated table has
        one part, and every chip has the same.
    """
    check_sharding(table, sharding, setting.chips)
    chips, batch = setting.chips, setting.batch
    touched_bytes = table.width * (3 * table.element_bytes + 2 * table.optimizer_bytes)
    count = unique_rows_of_shards if setting.deduplicate else lookups_of_shards
    asked, answered = np.zeros(sharding.rows), np.zeros(sharding.rows)  # by each chip, in rows
    for feature in features:
        lookups = batch * feature.valency
        rows = count(table.rows, feature.skew, lookups, sharding.rows)
        asked = asked + rows
        if sharding.pooled == "requester":
            answered = answered + rows
        else:
            answered = answered + batch * (1 - (1 - 1 / sharding.rows) ** feature.valency)
    bandwidth = setting.chip.memory_bandwidth
    if sharding.replicated:
        # Its own samples forwards; the gradients of all samples reach all rows.
        touched = asked * table.row_bytes + table.rows * touched_bytes
        return Shards(
            nbytes=table.nbytes,
            gather_seconds=touched / bandwidth,
            exchange_seconds=np.zeros(1),
            reduce_seconds=setting.all_reduce_seconds(table.rows * table.sent_bytes),
        )
    vector_bytes = table.row_bytes if sharding.pooled == "requester" else table.sent_bytes
    vectors = answered * (vector_bytes + table.sent_bytes) / sharding.columns  # and gradients
    exchanged = (chips - 1) * (asked * setting.id_bytes + vectors)
    gathered = chips * asked * touched_bytes / sharding.columns
    return Shards(
        nbytes=math.ceil(table.rows / sharding.rows) * table.nbytes / table.rows / sharding.columns,
        gather_seconds=np.repeat(gathered / bandwidth, sharding.columns),
        exchange_seconds=np.repeat(exchanged * setting.seconds_per_byte, sharding.columns),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCost:
    """Seconds of a step with embeddings, on the busiest chip.

    Attributes:
        gather_seconds: of memory.
        exchange_seconds: of links, all-reduces included.
        sparse_seconds: the longer of both, of one chip.
        dense_seconds: of everything else.
    """

    gather_seconds: float
    exchange_seconds: float
    sparse_seconds: float
    dense_seconds: float = 0.0

    @property
    def step_seconds(self) -> float:
        """The longer of the sparse and the dense part."""
        return max(self.sparse_seconds, self.dense_seconds)


def level_cost(
    model: EmbeddingModel,
    shardings: Mapping[str, Sharding],
    setting: EmbeddingSetting,
    *,
    dense_seconds: float = 0.0,
) -> EmbeddingCost:
    """Cost of a step if all chips had the same share of every table's work: a lower bound.

    Args:
        model: whose tables are split.
        shardings: of every table, by its name.
        setting: chips and samples.
        dense_seconds: of everything that is no embedding.

    Raises:
        ValueError: a table has no sharding, or cannot be split so.
    """
    if missing := [table.name for table in model.tables if table.name not in shardings]:
        raise ValueError(f"Tables {missing} have no sharding; give one for each.")
    gather = exchange = reduce = 0.0
    for table in model.tables:
        sharding = shardings[table.name]
        shards = shard_costs(table, model.features_of(table), sharding, setting)
        holders = 1 if sharding.replicated else setting.chips
        gather += float(shards.gather_seconds.sum()) / holders
        exchange += float(shards.exchange_seconds.sum()) / holders
        reduce += shards.reduce_seconds
    return EmbeddingCost(
        gather_seconds=gather,
        exchange_seconds=exchange + reduce,
        sparse_seconds=max(gather, exchange + reduce),
        dense_seconds=dense_seconds,
    )


def rebalancing_gain(sparse_seconds: float, dense_seconds: float) -> float:
    """How many times faster a step is once sparse and dense part take equally long.

    Work is moved from the longer to the shorter second by second.

    Example:
        >>> round(rebalancing_gain(0.75, 1.0), 3)
        1.143

    Source: Jouppi et al. 2023, arXiv 2304.01433: DLRM0's sparse part idled for a quarter of a step,
    and a search for its shape gained more than 10 %.
    """
    if not (sparse_seconds >= 0 and dense_seconds >= 0 and sparse_seconds + dense_seconds > 0):
        raise ValueError(
            "The sparse and the dense part need seconds of 0 or more, and one of them more, got "
            f"{sparse_seconds} and {dense_seconds}."
        )
    return max(sparse_seconds, dense_seconds) / ((sparse_seconds + dense_seconds) / 2)


def _torus_load(axes: Sequence[int]) -> float:
    """Pairs on the busiest link of a regular torus; see `EmbeddingSetting.link_load`.

    Minimal routes of a ring of k chips are k / 4 links long on average if k is even, and
    (k - 1/k) / 4 if it is odd; a chip has two links along the ring, one if k is 2.
    """
    chips = math.prod(axes)

    def load(size: int) -> float:
        distances = size / 4 if size % 2 == 0 else (size - 1 / size) / 4
        return chips * distances / (1 if size == 2 else 2)

    return max(load(size) for size in axes if size > 1)
