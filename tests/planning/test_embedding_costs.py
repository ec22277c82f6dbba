import dataclasses
import itertools

import numpy as np
import pytest

from gossamer.planning.chips import find_chip
from gossamer.planning.embedding_costs import (
    EmbeddingCost,
    EmbeddingSetting,
    level_cost,
    rebalancing_gain,
    shard_costs,
)
from gossamer.planning.embeddings import (
    REPLICATED,
    EmbeddingModel,
    Feature,
    Sharding,
    Table,
    sharding_volumes,
)

# The figure of Jouppi et al. 2023 for a link, not Pope's, which the chip has.
TPU = dataclasses.replace(find_chip("tpu-v4"), link_bandwidth=50e9)
TABLE = Table(name="words", rows=10**6, width=128)
FEATURES = (Feature(table="words", valency=20.0, skew=1.05), Feature(table="words", valency=1.5))
SHARDINGS = [
    Sharding(),
    Sharding(columns=4),
    Sharding(rows=128),
    Sharding(rows=128, pooled="requester"),
    Sharding(rows=16, columns=8),
]


def setting(**changes) -> EmbeddingSetting:
    return EmbeddingSetting(**({"chip": TPU, "axes": (4, 4, 8), "batch": 4096} | changes))


def busiest_link(axes: tuple[int, ...]) -> float:
    """Pairs on the busiest link, from all shortest routes of all pairs in equal parts.

    Axis by axis: on a torus the routes of a pair are those of its rings, in any order, and every
    order loads the links of an axis alike.
    """
    most = 0.0
    for size in axes:
        loads: dict[tuple[int, int], float] = {}
        for start, end in itertools.permutations(range(size), 2):
            ahead = (end - start) % size
            ways = [1] if 2 * ahead < size else [-1] if 2 * ahead > size else [1, -1]
            ways = [1] if size == 2 else ways  # both are the same link
            for way in ways:
                here = start
                while here != end:
                    link = (here, (here + way) % size)
                    loads[link] = loads.get(link, 0.0) + 1 / len(ways)
                    here = link[1]
        # Each pair of places on the ring stands for all pairs of chips with the same.
        most = max(most, max(loads.values(), default=0.0) * np.prod(axes) / size)
    return most


@pytest.mark.parametrize(
    "axes", [(4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 16), (2, 4), (2, 2), (3, 5), (5, 5, 4), (7,)]
)
def test_all_to_all_takes_what_the_busiest_link_does(axes):
    chips = np.prod(axes)
    sent = 1e6 * (chips - 1)  # a megabyte for each pair
    wanted = 1e6 * busiest_link(axes) / 50e9
    assert setting(axes=axes).all_to_all_seconds(sent) == pytest.approx(wanted, rel=1e-12)


def test_seconds_of_the_worked_example_on_both_tori():
    sent = sharding_volumes(
        TABLE, [Feature(table="words")], Sharding(), chips=128, batch=4096
    ).vectors
    regular, twisted = setting(), setting(link_load=220 / 3)
    assert regular.all_to_all_seconds(sent) * 1e6 == pytest.approx(41.94, abs=0.005)
    assert twisted.all_to_all_seconds(sent) * 1e6 == pytest.approx(24.03, abs=0.005)
    gain = regular.all_to_all_seconds(sent) / twisted.all_to_all_seconds(sent)
    assert gain == pytest.approx(1.7455, abs=1e-4)


@pytest.mark.parametrize("sharding", SHARDINGS, ids=str)
@pytest.mark.parametrize("deduplicate", [True, False])
def test_links_of_all_shards_together_take_what_the_volumes_do(sharding, deduplicate):
    at = setting(deduplicate=deduplicate)
    shards = shard_costs(TABLE, FEATURES, sharding, at)
    sent = sharding_volumes(
        TABLE, FEATURES, sharding, chips=128, batch=4096, deduplicate=deduplicate
    )
    wanted = at.all_to_all_seconds(sent.forward + sent.backward)
    assert shards.exchange_seconds.sum() / 128 == pytest.approx(wanted, rel=1e-9)
    assert len(shards.exchange_seconds) == len(shards.gather_seconds) == sharding.shards


@pytest.mark.parametrize("sharding", SHARDINGS, ids=str)
def test_shards_hold_the_table_and_their_rows_are_read_and_updated(sharding):
    table = dataclasses.replace(TABLE, optimizer_bytes=4.0)
    shards = shard_costs(table, FEATURES, sharding, setting(deduplicate=False))
    assert shards.nbytes * sharding.shards == pytest.approx(table.nbytes, rel=1e-3)
    # Read forwards; read and written backwards, with as many bytes of the optimizer.
    each = 128 * (4 + 2 * (4 + 4))
    wanted = 128 * 4096 * 21.5 * each / 1.2e12
    assert shards.gather_seconds.sum() == pytest.approx(wanted, rel=1e-9)


def test_replicas_update_every_row_and_reduce_over_all_links():
    shards = shard_costs(TABLE, FEATURES, REPLICATED, setting(deduplicate=False))
    assert shards.nbytes == TABLE.nbytes
    assert shards.exchange_seconds.sum() == 0
    # Two directions of three axes at 50 GB/s.
    assert shards.reduce_seconds == pytest.approx(2 * 127 / 128 * 512e6 / 300e9)
    wanted = (4096 * 21.5 * 512 + 10**6 * 3 * 512) / 1.2e12
    assert shards.gather_seconds[0] == pytest.approx(wanted)


def test_sums_and_gradients_have_bytes_of_their_own_and_rows_those_of_the_table():
    narrow = dataclasses.replace(TABLE, element_bytes=1.0, vector_bytes=4.0)
    for sharding in (*SHARDINGS, REPLICATED):
        stored, plain = (
            sharding_volumes(table, FEATURES, sharding, chips=128, batch=4096)
            for table in (narrow, TABLE)
        )
        rows_are_sent = sharding.pooled == "requester"
        wanted = dataclasses.replace(plain, vectors=plain.vectors / (4 if rows_are_sent else 1))
        assert stored == wanted
        seconds, all_wide = (
            shard_costs(table, FEATURES, sharding, setting()) for table in (narrow, TABLE)
        )
        assert seconds.gather_seconds.sum() < all_wide.gather_seconds.sum()
        at = setting()
        links = (seconds.exchange_seconds.sum() / 128, seconds.reduce_seconds)
        if sharding.replicated:
            assert links == (0, all_wide.reduce_seconds)
        else:
            sent = at.all_to_all_seconds(stored.forward + stored.backward)
            assert links == (pytest.approx(sent, rel=1e-9), 0)


def test_chips_that_switches_join_use_all_their_links_for_each_other():
    h100 = find_chip("h100-sxm")  # 18 links of 25 GB/s
    at = setting(chip=h100, axes=(8,))
    assert at.all_to_all_seconds(450e9) == pytest.approx(1.0)
    assert at.all_reduce_seconds(450e9) == pytest.approx(2 * 7 / 8)


def test_axes_without_joined_ends_reduce_over_half_as_many_links():
    # Of a ring of 4 chips two links leave each, of a line one; at 2 there is one in both.
    whole = setting(axes=(2, 4))
    part = setting(axes=(2, 4), wrapped=False, link_load=8.0)
    assert part.all_reduce_seconds(1e9) / whole.all_reduce_seconds(1e9) == pytest.approx(3 / 2)
    assert part.all_to_all_seconds(7e9) == pytest.approx(8.0 * 1e9 / 50e9)


def test_skew_loads_the_shard_of_the_first_row_unless_duplicates_are_removed():
    def imbalance(deduplicate: bool) -> float:
        at = setting(deduplicate=deduplicate)
        seconds = shard_costs(TABLE, FEATURES, Sharding(rows=128), at).gather_seconds
        return seconds.max() / seconds.mean()

    assert imbalance(False) > 5
    assert imbalance(True) < 1.2


def test_removing_duplicates_makes_every_sharding_faster_on_skewed_lookups():
    model = EmbeddingModel(tables=(TABLE,), features=FEATURES)
    for sharding in SHARDINGS:
        kept, removed = (
            level_cost(model, {"words": sharding}, setting(deduplicate=each))
            for each in (False, True)
        )
        assert removed.gather_seconds < kept.gather_seconds
        assert removed.exchange_seconds < kept.exchange_seconds


def test_a_step_takes_the_longer_of_its_parts():
    sizes = {"gather_seconds": 1.0, "exchange_seconds": 2.0, "sparse_seconds": 2.0}
    assert EmbeddingCost(**sizes, dense_seconds=3.0).step_seconds == 3.0
    assert EmbeddingCost(**sizes, dense_seconds=0.5).step_seconds == 2.0


def test_a_sparse_part_that_idles_a_quarter_leaves_a_tenth_to_gain():
    assert rebalancing_gain(0.75, 1.0) >= 1.10
    assert rebalancing_gain(0.75, 1.0) == rebalancing_gain(1.0, 0.75) == pytest.approx(8 / 7)
    assert rebalancing_gain(1.0, 1.0) == 1.0
    assert rebalancing_gain(0.0, 1.0) == 2.0


def test_level_cost_adds_up_tables():
    other = Table(name="places", rows=1000, width=64)
    model = EmbeddingModel(
        tables=(TABLE, other), features=(*FEATURES, Feature(table="places", valency=3.0))
    )
    shardings = {"words": Sharding(rows=128), "places": REPLICATED}
    both = level_cost(model, shardings, setting(), dense_seconds=1.0)
    parts = [
        level_cost(
            EmbeddingModel(tables=(table,), features=model.features_of(table)), shardings, setting()
        )
        for table in model.tables
    ]
    assert both.gather_seconds == pytest.approx(sum(p.gather_seconds for p in parts))
    assert both.exchange_seconds == pytest.approx(sum(p.exchange_seconds for p in parts))
    assert both.sparse_seconds == max(both.gather_seconds, both.exchange_seconds)
    assert both.step_seconds == 1.0


def test_one_chip_exchanges_nothing():
    at = setting(axes=(1,), chip=find_chip("cpu"))
    model = EmbeddingModel(tables=(TABLE,), features=FEATURES)
    for sharding in (Sharding(), REPLICATED):
        cost = level_cost(model, {"words": sharding}, at)
        assert cost.exchange_seconds == 0
        assert cost.gather_seconds > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: setting(axes=()), r"a chip or more each, got \(\)"),
        (lambda: setting(axes=(4, 0)), r"a chip or more each, got \(4, 0\)"),
        (lambda: setting(batch=0), "batch needs to be 1 sample or more, got 0"),
        (lambda: setting(id_bytes=0.0), "id_bytes needs to be positive, got 0"),
        (lambda: setting(link_load=0.0), "link_load needs to be positive, got 0"),
        (lambda: setting(wrapped=False), "without joined ends needs the link_load of its topology"),
        (
            lambda: setting(chip=find_chip("cpu")),
            "No links of cpu are known",
        ),
        (
            lambda: level_cost(EmbeddingModel(tables=(TABLE,), features=()), {}, setting()),
            r"Tables \['words'\] have no sharding",
        ),
        (lambda: rebalancing_gain(-1.0, 1.0), "0 or more, and one of them more, got -1"),
        (lambda: rebalancing_gain(0.0, 0.0), "0 or more, and one of them more, got 0"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
