import dataclasses
import io
import itertools

import matplotlib.image
import numpy as np
import pytest

from gossamer.planning.chips import find_chip
from gossamer.planning.embedding_costs import EmbeddingSetting, level_cost, shard_costs
from gossamer.planning.embedding_placement import (
    alike_shardings,
    place_tables,
    placement_plot,
    possible_shardings,
)
from gossamer.planning.embeddings import (
    REPLICATED,
    EmbeddingModel,
    Feature,
    Sharding,
    Table,
)

TPU = find_chip("tpu-v4")


def random_model(seed: int, tables: int, *, rows: float = 1e5) -> EmbeddingModel:
    """Tables and features of all sizes, as recommenders have them."""
    generator = np.random.default_rng(seed)
    names = [f"t{place}" for place in range(tables)]
    return EmbeddingModel(
        tables=tuple(
            Table(
                name=name,
                rows=int(rows * generator.lognormal(0, 1.5)) + 64,
                width=int(generator.choice([8, 32, 64, 128])),
            )
            for name in names
        ),
        features=tuple(
            Feature(
                table=name,
                valency=float(np.exp(generator.uniform(0, np.log(100)))),
                skew=float(generator.uniform(0, 1.2)),
            )
            for name in names * 2
        ),
    )


def least_seconds(
    model: EmbeddingModel,
    setting: EmbeddingSetting,
    shardings: dict[str, list[Sharding]],
    limit: float,
) -> float:
    """Seconds of the best of all placements: every sharding, every chip for every shard."""
    chips = setting.chips
    ways = []
    for table in model.tables:
        found = []
        for sharding in shardings[table.name]:
            shards = shard_costs(table, model.features_of(table), sharding, setting)
            places = itertools.permutations(range(chips), sharding.shards)
            for at in [tuple(range(chips))] if sharding.replicated else places:
                loads = np.zeros((3, chips))
                loads[0, list(at)] = shards.nbytes
                loads[1, list(at)] = shards.gather_seconds
                loads[2, list(at)] = shards.exchange_seconds + shards.reduce_seconds
                found.append(loads)
        ways.append(np.stack(found))
    total = ways[0]
    for each in ways[1:]:
        total = (total[:, None] + each).reshape(-1, 3, chips)
    total = total[(total[:, 0] <= limit).all(axis=-1)]
    return float(total[:, 1:].max(axis=(1, 2)).min()) if len(total) else np.inf


@pytest.mark.parametrize("tight", [False, True])
def test_search_is_close_to_the_best_of_all_placements(tight):
    ratios = []
    for seed in range(16):
        chips, tables = ((2, 5), (3, 4))[seed % 2]
        model = random_model(seed, tables)
        setting = EmbeddingSetting(chip=TPU, axes=(chips,), batch=512)
        choices = [Sharding(), Sharding(columns=2), Sharding(rows=chips), REPLICATED]
        choices = {table.name: choices for table in model.tables}
        limit = model.nbytes / chips * 1.3 if tight else TPU.memory_bytes
        best = least_seconds(model, setting, choices, limit)
        found = place_tables(model, setting, table_bytes=limit, shardings=choices)
        assert found.chip_bytes.max() <= limit * (1 + 1e-9)
        ratios.append(found.cost.sparse_seconds / best)
    assert min(ratios) >= 1 - 1e-9  # nothing beats all placements
    assert max(ratios) <= 1.10
    assert np.mean(ratios) <= 1.01


def loads_of(placement, model, setting) -> np.ndarray:
    """Bytes, memory and link seconds of each chip, from the shards and where they are."""
    loads = np.zeros((3, setting.chips))
    for table in model.tables:
        sharding, at = placement.shardings[table.name], placement.chips[table.name]
        shards = shard_costs(table, model.features_of(table), sharding, setting)
        assert len(set(at.tolist())) == len(at) == (0 if sharding.replicated else sharding.shards)
        for shard, chip in enumerate(at):
            loads[0, chip] += shards.nbytes
            loads[1, chip] += shards.gather_seconds[shard]
            loads[2, chip] += shards.exchange_seconds[shard]
        if sharding.replicated:
            loads += [[shards.nbytes], [shards.gather_seconds[0]], [shards.reduce_seconds]]
    return loads


@pytest.mark.parametrize("seed", range(2))
def test_a_placement_costs_what_its_shards_do_where_they_are(seed):
    model = random_model(seed, 12)
    setting = EmbeddingSetting(chip=TPU, axes=(4, 4), batch=1024)
    placement = place_tables(model, setting, dense_seconds=1e-9)
    nbytes, gather, exchange = loads_of(placement, model, setting)
    np.testing.assert_allclose(placement.chip_bytes, nbytes, rtol=1e-9)
    np.testing.assert_allclose(placement.chip_gather_seconds, gather, rtol=1e-9)
    np.testing.assert_allclose(placement.chip_exchange_seconds, exchange, rtol=1e-9)
    assert placement.cost.sparse_seconds == pytest.approx(max(gather.max(), exchange.max()))
    assert placement.cost.step_seconds == placement.cost.sparse_seconds
    again = place_tables(model, setting, dense_seconds=1e-9)
    assert again.cost == placement.cost


def test_search_beats_every_single_sharding_and_is_near_even():
    model = random_model(5, 30)
    setting = EmbeddingSetting(chip=TPU, axes=(4, 4, 2), batch=2048)
    found = place_tables(model, setting)
    for sharding in (Sharding(), Sharding(columns=2), Sharding(rows=32), REPLICATED):
        fits = {t.name: [sharding] for t in model.tables if t.width // sharding.columns >= 8}
        alone = place_tables(model, setting, shardings=fits)
        assert found.cost.sparse_seconds <= alone.cost.sparse_seconds
    level = level_cost(model, found.shardings, setting)
    assert found.cost.sparse_seconds < 1.15 * level.sparse_seconds
    assert found.imbalance < 1.15


def test_hot_rows_are_spread_once_duplicates_are_not_removed():
    # Without duplicates removed one shard of a table of rows gets most lookups: tables take turns.
    tables = tuple(Table(name=f"t{i}", rows=10**5, width=8) for i in range(8))
    features = tuple(Feature(table=t.name, valency=10.0, skew=1.2) for t in tables)
    model = EmbeddingModel(tables=tables, features=features)
    setting = EmbeddingSetting(chip=TPU, axes=(8,), batch=512, deduplicate=False)
    rows = {t.name: [Sharding(rows=8)] for t in tables}
    found = place_tables(model, setting, shardings=rows)
    one = shard_costs(tables[0], features[:1], rows["t0"][0], setting).gather_seconds
    assert one.max() / one.mean() > 2
    assert found.imbalance < 1.01


def test_tables_that_are_too_large_for_a_chip_are_split():
    table = Table(name="large", rows=10**8, width=128)  # 51 GB
    model = EmbeddingModel(tables=(table,), features=(Feature(table="large", valency=3.0),))
    setting = EmbeddingSetting(chip=TPU, axes=(4, 4), batch=128)
    found = place_tables(model, setting)
    assert found.shardings["large"].shards > 1
    assert found.chip_bytes.max() <= TPU.memory_bytes


def test_small_tables_with_many_lookups_are_replicated():
    table = Table(name="small", rows=100, width=128)
    model = EmbeddingModel(tables=(table,), features=(Feature(table="small", valency=50.0),))
    setting = EmbeddingSetting(chip=TPU, axes=(4, 4, 4), batch=4096, deduplicate=False)
    assert place_tables(model, setting).shardings["small"] == REPLICATED


def test_replicas_make_way_where_memory_is_short():
    tables = tuple(Table(name=f"t{i}", rows=1000, width=128) for i in range(12))
    features = tuple(Feature(table=table.name, valency=50.0) for table in tables)
    model = EmbeddingModel(tables=tables, features=features)
    setting = EmbeddingSetting(chip=TPU, axes=(4, 4), batch=4096, deduplicate=False)
    roomy = place_tables(model, setting)
    assert set(roomy.shardings.values()) == {REPLICATED}
    limit = 1.05 * model.nbytes / 16
    tight = place_tables(model, setting, table_bytes=limit)
    assert tight.chip_bytes.max() <= limit * (1 + 1e-9)
    assert tight.cost.sparse_seconds > roomy.cost.sparse_seconds


def test_tables_without_features_take_memory_alone():
    model = EmbeddingModel(tables=MODEL.tables, features=())
    found = place_tables(model, AT)
    assert found.cost.sparse_seconds == 0
    assert found.chip_bytes.sum() >= model.nbytes
    assert found.imbalance == 1.0


def test_possible_shardings_are_possible():
    found = possible_shardings(Table(name="a", rows=100, width=32), 64)
    assert [str(each) for each in found] == [
        "table",
        "2 columns",
        "4 columns",
        "4 rows",
        "4 rows x 2 columns",
        "4 rows x 4 columns",
        "16 rows",
        "16 rows x 2 columns",
        "16 rows x 4 columns",
        "64 rows",
        "64 rows, pooled by the requester",
        "replicated",
    ]
    assert possible_shardings(Table(name="a", rows=3, width=5), 1) == [Sharding(), REPLICATED]


def test_tables_are_split_alike_as_far_as_each_can_be():
    small, large = Table(name="a", rows=3, width=5), Table(name="b", rows=1000, width=64)
    found = alike_shardings(EmbeddingModel(tables=(small, large), features=()), 16)
    assert found == {
        "rows": {"a": Sharding(rows=3), "b": Sharding(rows=16)},
        "columns": {"a": Sharding(), "b": Sharding(columns=8)},
        "tables": {"a": Sharding(), "b": Sharding()},
    }


def test_the_plot_of_chips_has_a_line_for_the_dense_part_if_there_is_one():
    plain, dense = (
        placement_plot(place_tables(MODEL, AT, dense_seconds=seconds), title="chips")
        for seconds in (0.0, 1.0)
    )
    assert plain.startswith(b"\x89PNG")
    green = [44, 160, 44]
    for plot, drawn in ((plain, False), (dense, True)):
        image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round()
        assert bool((image == green).all(-1).any()) == drawn


MODEL = random_model(0, 3)
AT = EmbeddingSetting(chip=TPU, axes=(4,), batch=8)


def test_tables_that_do_not_fit_are_refused_with_how_much_and_what_would():
    limit = MODEL.nbytes / 8
    missing = (
        f"{MODEL.nbytes - 4 * limit:.0f} too many. 8 chips would hold them, or elements.* 50 %"
    )
    with pytest.raises(ValueError, match=missing):
        place_tables(MODEL, AT, table_bytes=limit)
    place_tables(MODEL, dataclasses.replace(AT, axes=(16,)), table_bytes=limit)


def test_a_table_that_is_not_allowed_to_be_split_is_named():
    large = max(MODEL.tables, key=lambda table: table.nbytes)
    limit = large.nbytes - 1
    whole = {table.name: [Sharding()] for table in MODEL.tables}
    message = f"No chip has room for table '{large.name}': in table a part takes {large.nbytes:.0f}"
    with pytest.raises(
        ValueError, match=f"{message} bytes.*of {limit:.0f} bytes.*allow more parts"
    ):
        place_tables(MODEL, AT, table_bytes=limit, shardings=whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table_bytes": 0.0}, "table_bytes needs to be positive, got 0"),
        ({"shardings": {"x": [Sharding()]}}, r"given for \['x'\], which are not among \['t0'"),
        ({"shardings": {"t0": []}}, "No sharding of table 't0' is allowed"),
        ({"shardings": {"t0": [Sharding(rows=8)]}}, "8 shards, one a chip, and there are 4 chips"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        place_tables(MODEL, AT, **changes)
