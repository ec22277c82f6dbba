import dataclasses

import numpy as np
import pytest

from gossamer.planning.embedding_access import unique_fraction
from gossamer.planning.embeddings import (
    REPLICATED,
    EmbeddingModel,
    Feature,
    Sharding,
    Table,
    read_embedding_model,
    sharding_volumes,
)

TABLE = Table(name="words", rows=10**6, width=128)
AT = {"chips": 128, "batch": 4096}


def vectors(valency: float, sharding: Sharding) -> float:
    feature = Feature(table="words", valency=valency)
    return sharding_volumes(TABLE, [feature], sharding, **AT, deduplicate=False).vectors


def test_vectors_of_the_worked_example_to_the_byte():
    # 128 chips of 4096 samples, rows of 128 float32.
    assert vectors(20.0, Sharding()) == 2_080_768
    assert vectors(20.0, Sharding(rows=128, pooled="requester")) == 41_615_360
    assert round(vectors(20.0, Sharding(rows=128))) == 38_666_811
    assert vectors(20.0, Sharding(columns=4)) == 2_080_768


def test_volumes_are_those_of_messages_counted_one_by_one():
    # Every chip looks up its samples; every sample's rows, ids and sums are followed to their
    # owners. Shards of the table start at each chip in turn, as those of many tables would.
    chips, batch, valency, rows, width = 4, 6, 3, 40, 8
    table = Table(name="words", rows=rows, width=width)
    feature = Feature(table="words", valency=float(valency))
    generator = np.random.default_rng(0)
    for sharding in (
        Sharding(),
        Sharding(columns=2),
        Sharding(rows=2, columns=2),
        Sharding(rows=4),
    ):
        ids, sums = [], []
        for _ in range(400):
            samples = generator.integers(0, rows, (chips, batch, valency))
            start = generator.integers(chips)
            sent = np.zeros(2)
            for asker, sample in np.ndindex(chips, batch):
                for column in range(sharding.columns):
                    owners = samples[asker, sample] % sharding.rows * sharding.columns + column
                    owners = (owners + start) % chips
                    sent[0] += 4 * (owners != asker).sum()
                    away = set(owners.tolist()) - {asker}
                    sent[1] += len(away) * 4 * width / sharding.columns
            ids.append(sent[0] / chips)
            sums.append(sent[1] / chips)
        got = sharding_volumes(
            table, [feature], sharding, chips=chips, batch=batch, deduplicate=False
        )
        for drawn, expected in ((ids, got.ids), (sums, got.vectors)):
            error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
            assert abs(np.mean(drawn) - expected) <= 4 * error + 1e-9, sharding


def test_duplicates_are_left_out_of_ids_and_of_what_the_requester_pools():
    feature = Feature(table="words", valency=20.0, skew=1.1)
    share = unique_fraction(10**6, 1.1, 20.0 * 4096)
    assert share < 0.5
    for sharding, kept in (
        (Sharding(), 1),
        (Sharding(rows=128), 1),
        (Sharding(rows=128, pooled="requester"), share),
    ):
        with_all, distinct = (
            sharding_volumes(TABLE, [feature], sharding, **AT, deduplicate=each)
            for each in (False, True)
        )
        assert distinct.ids == pytest.approx(share * with_all.ids)
        assert distinct.vectors == pytest.approx(kept * with_all.vectors)


def test_columns_multiply_ids_and_leave_vectors():
    feature = Feature(table="words", valency=5.0)
    whole, split = (sharding_volumes(TABLE, [feature], Sharding(columns=c), **AT) for c in (1, 8))
    assert split.ids == 8 * whole.ids
    assert split.vectors == whole.vectors


def test_gradients_mirror_vectors_and_replicas_send_gradients_alone():
    feature = Feature(table="words", valency=5.0)
    split = sharding_volumes(TABLE, [feature], Sharding(rows=128), **AT)
    assert split.gradients == split.vectors
    assert split.forward == split.ids + split.vectors
    assert split.backward == split.gradients
    copied = sharding_volumes(TABLE, [feature], REPLICATED, **AT)
    assert copied.forward == 0
    assert copied.backward == copied.reduced == 2 * 127 / 128 * 10**6 * 512


def test_volumes_of_features_and_tables_add_up():
    one, two = Feature(table="words", valency=2.0), Feature(table="words", valency=7.0, skew=1.0)
    sharding = Sharding(rows=16, columns=2)
    both = sharding_volumes(TABLE, [one, two], sharding, **AT)
    parts = [sharding_volumes(TABLE, [each], sharding, **AT) for each in (one, two)]
    total = parts[0] + parts[1]
    for field in dataclasses.fields(total):
        assert getattr(both, field.name) == pytest.approx(getattr(total, field.name))


def test_one_chip_sends_nothing():
    for sharding in (Sharding(), REPLICATED):
        found = sharding_volumes(TABLE, [Feature(table="words")], sharding, chips=1, batch=8)
        assert found.forward == found.backward == 0


def test_memory_counts_what_the_optimizer_keeps():
    table = Table(name="a", rows=10, width=3, element_bytes=2.0, optimizer_bytes=4.0)
    assert table.row_bytes == 6
    assert table.nbytes == 10 * 3 * 6
    assert EmbeddingModel(tables=(table, TABLE), features=()).nbytes == 180 + 512e6


def test_a_model_is_read_from_yaml(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(
        "tables:\n- {name: a, rows: 10, width: 8, element_bytes: 2}\n"
        "- {name: b, rows: 5, width: 4}\n"
        "features:\n- {table: a, valency: 3, skew: 1.1}\n- {table: b}\n"
    )
    model = read_embedding_model(file)
    assert model.tables[0] == Table(name="a", rows=10, width=8, element_bytes=2.0)
    assert model.features_of(model.tables[0]) == (Feature(table="a", valency=3.0, skew=1.1),)


def test_all_faults_of_a_file_are_named(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(
        "tables:\n- {name: a, rows: many, width: 8}\n- {name: b, rows: 5, width: 4, height: 1}\n"
        "features:\n- {table: a, valency: some}\n"
    )
    with pytest.raises(ValueError, match=r"rows needs int.*unknown field .height.*needs float"):
        read_embedding_model(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_embedding_model(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("sharding", "text"),
    [
        (Sharding(), "table"),
        (REPLICATED, "replicated"),
        (Sharding(columns=2), "2 columns"),
        (Sharding(rows=8), "8 rows"),
        (Sharding(rows=8, pooled="requester"), "8 rows, pooled by the requester"),
        (Sharding(rows=8, columns=2), "8 rows x 2 columns"),
    ],
)
def test_a_sharding_says_what_it_is(sharding, text):
    assert str(sharding) == text


def volumes(table: Table = TABLE, sharding: Sharding | None = None, **changes):
    features = [Feature(table=table.name)]
    return sharding_volumes(table, features, sharding or Sharding(), **(AT | changes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Table(name="a", rows=0, width=1), "rows of table 'a' needs to be positive, got 0"),
        (lambda: Table(name="a", rows=1, width=-1), "width of table 'a' needs to be positive"),
        (
            lambda: Table(name="a", rows=1, width=1, optimizer_bytes=-1.0),
            "optimizer_bytes of table 'a' needs to be 0 or more, got -1",
        ),
        (lambda: Feature(table="a", valency=0.0), "valency of a feature of table 'a' needs"),
        (lambda: Feature(table="a", skew=-0.1), "skew of a feature of table 'a' needs to be 0"),
        (lambda: EmbeddingModel(tables=(), features=()), "needs a table or more, got none"),
        (lambda: EmbeddingModel(tables=(TABLE, TABLE), features=()), r"got \['words'\] twice"),
        (
            lambda: EmbeddingModel(tables=(TABLE,), features=(Feature(table="x"),)),
            r"name the tables \['x'\], which are not among \['words'\]",
        ),
        (lambda: Sharding(rows=0), "rows of a sharding needs to be 1 or more, got 0"),
        (lambda: Sharding(rows=2, replicated=True), "replicated whole"),
        (
            lambda: volumes(sharding=Sharding(rows=128, columns=2)),
            "128 rows x 2 columns has 256 shards, one a chip, and there are 128 chips",
        ),
        (
            lambda: volumes(sharding=Sharding(columns=3)),
            "width 128 of table 'words' does not divide into 3 columns",
        ),
        (
            lambda: volumes(Table(name="few", rows=3, width=8), Sharding(rows=4)),
            "The 3 rows of table 'few' are fewer than 4 shards; use fewer, or replicate it",
        ),
        (lambda: volumes(chips=0), "chips needs to be 1 or more, got 0"),
        (lambda: volumes(batch=0), "batch needs to be positive, got 0"),
        (lambda: volumes(id_bytes=0.0), "id_bytes needs to be positive, got 0"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
