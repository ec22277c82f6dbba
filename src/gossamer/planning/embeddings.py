"""Embedding tables split over chips: who holds what, and which bytes are sent.

A sample looks up some rows of each table and adds them up. The chips that ask, all of them for
their own samples, are rarely those that hold the rows: ids go one way, vectors come back, and
gradients follow the ids.

Source: Jouppi et al. 2023, arXiv 2304.01433, names the ways of sharding and gives no volumes; the
volumes are a reconstruction.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from gossamer.planning.embedding_access import unique_fraction
from gossamer.planning.yaml_files import check_faults, read_yaml, reader


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """An embedding table.

    Attributes:
        name: that features say.
        rows: of the vocabulary.
        width: elements of a row.
        element_bytes: of an element.
        optimizer_bytes: that the optimizer keeps for each element: 4 for Adagrad in float32.
        vector_bytes: of an element of sums and gradients, which are sent; None: as `element_bytes`.
            Rows that are sent before they are added up are sent as they are stored.
    """

    name: str
    rows: int
    width: int
    element_bytes: float = 4.0
    optimizer_bytes: float = 0.0
    vector_bytes: float | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "width", "element_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} of table {self.name!r} needs to be positive, got {getattr(self, name)}"
                )
        if not self.optimizer_bytes >= 0:
            raise ValueError(
                f"optimizer_bytes of table {self.name!r} needs to be 0 or more, got "
                f"{self.optimizer_bytes}"
            )
        if self.vector_bytes is not None and not self.vector_bytes > 0:
            raise ValueError(
                f"vector_bytes of table {self.name!r} needs to be positive, got {self.vector_bytes}"
            )

    @property
    def row_bytes(self) -> float:
        """Bytes of a row, without the optimizer's."""
        return self.width * self.element_bytes

    @property
    def sent_bytes(self) -> float:
        """Bytes of a sum of rows, or of its gradient."""
        each = self.element_bytes if self.vector_bytes is None else self.vector_bytes
        return self.width * each

    @property
    def nbytes(self) -> float:
        """Bytes of the table with what the optimizer keeps."""
        return self.rows * self.width * (self.element_bytes + self.optimizer_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature of each sample, whose values are rows of a table.

    Attributes:
        table: the table's name.
        valency: rows that a sample looks up and adds; the mean where it varies.
        skew: exponent of Zipf's law that the lookups follow; 0 is uniform.
    """

    table: str
    valency: float = 1.0
    skew: float = 0.0

    def __post_init__(self) -> None:
        if not self.valency > 0:
            raise ValueError(
                f"valency of a feature of table {self.table!r} needs to be positive, got "
                f"{self.valency}"
            )
        if not self.skew >= 0:
            raise ValueError(
                f"skew of a feature of table {self.table!r} needs to be 0 or more, got {self.skew}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingModel:
    """All tables and features of a model."""

    tables: tuple[Table, ...]
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [table.name for table in self.tables]
        if not names:
            raise ValueError("An embedding model needs a table or more, got none")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Tables need names of their own, got {twice} twice or more")
        if unknown := sorted({feature.table for feature in self.features} - set(names)):
            raise ValueError(f"Features name the tables {unknown}, which are not among {names}")

    def features_of(self, table: Table) -> tuple[Feature, ...]:
        """The features that look up a table."""
        return tuple(feature for feature in self.features if feature.table == table.name)

    @property
    def nbytes(self) -> float:
        """Bytes of all tables, each once."""
        return sum(table.nbytes for table in self.tables)


def read_embedding_model(file: str | pathlib.Path) -> EmbeddingModel:
    """Reads a YAML file with the `tables` and `features` of a model.

    Raises:
        ValueError: the file cannot be read, or a field is unknown, missing or malformed; all faults
            are named.
    """
    data = read_yaml(file, "embedding model")
    reading = reader()
    model = reading.build(EmbeddingModel, data, "model")
    check_faults(reading, f"embedding model {str(file)!r} is")
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharding:
    """How one table is split.

    Attributes:
        rows: parts of its vocabulary; row `i` belongs to part `i % rows`.
        columns: parts of its width.
        pooled: where the rows of a sample are added up. By their `owner`, each sends one sum for
            every sample; by the `requester`, each sends the distinct rows.
        replicated: whether every chip has the whole table instead.
    """

    rows: int = 1
    columns: int = 1
    pooled: Literal["owner", "requester"] = "owner"
    replicated: bool = False

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} of a sharding needs to be 1 or more, got {getattr(self, name)}."
                )
        if self.replicated and self.shards > 1:
            raise ValueError("A table is replicated whole: rows and columns need to be 1.")

    @property
    def shards(self) -> int:
        """Parts in all, each on a chip of its own."""
        return self.rows * self.columns

    def __str__(self) -> str:
        if self.replicated:
            return "replicated"
        if self.shards == 1:
            name = "table"
        elif self.rows == 1:
            name = f"{self.columns} columns"
        elif self.columns == 1:
            name = f"{self.rows} rows"
        else:
            name = f"{self.rows} rows x {self.columns} columns"
        return name if self.pooled == "owner" else f"{name}, pooled by the requester"


REPLICATED = Sharding(replicated=True)
"""Every chip has the table; gradients are all-reduced."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volumes:
    """Bytes that a chip sends in one step, on average.

    Attributes:
        ids: of rows that it asks for.
        vectors: that it answers with.
        gradients: of the vectors it got; they go back as vectors came.
        reduced: of the gradients of replicated tables, in an all-reduce.
    """

    ids: float = 0.0
    vectors: float = 0.0
    gradients: float = 0.0
    reduced: float = 0.0

    @property
    def forward(self) -> float:
        """Bytes of the forward pass."""
        return self.ids + self.vectors

    @property
    def backward(self) -> float:
        """Bytes of the backward pass."""
        return self.gradients + self.reduced

    def __add__(self, other: "Volumes") -> "Volumes":
        fields = (field.name for field in dataclasses.fields(self))
        return Volumes(**{name: getattr(self, name) + getattr(other, name) for name in fields})


def sharding_volumes(
    table: Table,
    features: Sequence[Feature],
    sharding: Sharding,
    *,
    chips: int,
    batch: int,
    id_bytes: float = 4.0,
    deduplicate: bool = True,
) -> Volumes:
    r"""Bytes that a chip sends for one table.

    With :math:`n` chips, :math:`b` samples each, valency :math:`v`, rows of :math:`D s` bytes in
    :math:`C` columns and :math:`R` rows of shards, and a fraction :math:`u` of lookups left without
    duplicates, each feature sends

    .. math:: \text{ids: } \tfrac{n-1}{n} C b v u s_{id} \qquad
        \text{vectors, pooled by the owner: }
        \tfrac{n-1}{n} b R \big(1 - (1 - \tfrac{1}{R})^v\big) D s

    or vectors of :math:`\tfrac{n-1}{n} b v u D s` where the requester pools. A replicated table
    sends :math:`2 \tfrac{n-1}{n} N D s` of dense gradients. Where the owner pools it also has to be
    told which samples ask for an id that comes once; that is not counted.

    Args:
        table: that is looked up.
        features: of it.
        sharding: of it.
        chips: n, on which shards of all tables are spread evenly.
        batch: b, samples of a chip and step.
        id_bytes: of the number of a row.
        deduplicate: whether a chip asks for each row once in a step; otherwise u is 1.

    Raises:
        ValueError: there are more shards than chips, columns do not divide the width, or rows are
            fewer than shards.

    Example:
        >>> table, feature = Table(name="a", rows=10**6, width=128), Feature(table="a")
        >>> sharding_volumes(table, [feature], Sharding(), chips=128, batch=4096).vectors
        2080768.0
    """
    check_sharding(table, sharding, chips)
    for name, value in (("batch", batch), ("id_bytes", id_bytes)):
        if not value > 0:
            raise ValueError(f"{name} needs to be positive, got {value}.")
    away = (chips - 1) / chips
    if sharding.replicated:
        return Volumes(reduced=2 * away * table.rows * table.sent_bytes)
    lookups = sum(
        feature.valency
        * (unique_fraction(table.rows, feature.skew, batch * feature.valency) if deduplicate else 1)
        for feature in features
    )
    if sharding.pooled == "requester":
        answered, vector_bytes = lookups, table.row_bytes
    else:
        answered = sum(
            sharding.rows * _hit_share(sharding.rows, feature.valency) for feature in features
        )
        vector_bytes = table.sent_bytes
    sent = away * batch * answered
    return Volumes(
        ids=away * sharding.columns * batch * lookups * id_bytes,
        vectors=sent * vector_bytes,
        gradients=sent * table.sent_bytes,
    )


def check_sharding(table: Table, sharding: Sharding, chips: int) -> None:
    """Refuses what cannot be split so.

    Raises:
        ValueError: there are more shards than chips, columns do not divide the width, or rows are
            fewer than shards.
    """
    if chips < 1:
        raise ValueError(f"chips needs to be 1 or more, got {chips}.")
    if sharding.shards > chips:
        raise ValueError(
            f"Table {table.name!r} in {sharding} has {sharding.shards} shards, one a chip, and "
            f"there are {chips} chips; use at most as many shards."
        )
    if table.width % sharding.columns:
        raise ValueError(
            f"The width {table.width} of table {table.name!r} does not divide into "
            f"{sharding.columns} columns; use a divisor of it."
        )
    if table.rows < sharding.rows:
        raise ValueError(
            f"The {table.rows} rows of table {table.name!r} are fewer than {sharding.rows} shards; "
            "use fewer, or replicate it."
        )


def _hit_share(shards: int, valency: float) -> float:
    """Share of the samples for which one of the shards has a row or more, if rows spread evenly."""
    return 1 - (1 - 1 / shards) ** valency
