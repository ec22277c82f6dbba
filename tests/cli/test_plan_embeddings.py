"""`gossamer plan embeddings`: figures are those of the library, and bad input is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gossamer.planning import (
    EmbeddingSetting,
    Sharding,
    find_chip,
    level_cost,
    parse_slice,
    place_tables,
    read_embedding_model,
    rebalancing_gain,
    sharding_volumes,
    store_tables,
)
from gossamer.recipe import PRESETS

EXAMPLE = Path(__file__).parents[2] / "examples" / "embeddings.yaml"
SMALL = """
tables:
  - {name: users, rows: 100000, width: 64, optimizer_bytes: 4}
  - {name: items, rows: 5000, width: 32}
features:
  - {table: users, valency: 20, skew: 1.05}
  - {table: items, valency: 1.5}
"""
TPU = find_chip("tpu-v4")


@pytest.fixture(name="file")
def of_file(tmp_path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.fixture(name="plan")
def of_plan(gossamer, file):
    def run(*options, chip="tpu-v4"):
        return gossamer("plan", "embeddings", file, "--chip", chip, "--batch", 256, *options)

    return run


@pytest.mark.parametrize("name", ["2x2x2", "4x4x8", "4x4x8_T"])
def test_the_step_is_that_of_the_librarys_placement(plan, file, name):
    got = plan("--slice", name, "--dense-ms", 0.02, "--json").json()
    topology = parse_slice(name).topology
    setting = EmbeddingSetting(
        chip=TPU,
        axes=topology.sizes,
        batch=256,
        wrapped=name != "2x2x2",
        link_load=topology.max_link_load,
    )
    model = read_embedding_model(file)
    want = place_tables(model, setting, dense_seconds=0.02e-3)
    assert {name: got[name] for name in dataclasses.asdict(want.cost)} == dataclasses.asdict(
        want.cost
    )
    assert got["seconds"] == want.cost.step_seconds
    assert got["imbalance"] == want.imbalance
    assert got["rebalancing_gain"] == rebalancing_gain(want.cost.sparse_seconds, 0.02e-3)
    assert got["chip_bytes"]["each"] == want.chip_bytes.tolist()
    assert [each["sharding"] for each in got["tables"]] == [*map(str, want.shardings.values())]
    sent = [
        sharding_volumes(
            table,
            model.features_of(table),
            want.shardings[table.name],
            chips=setting.chips,
            batch=256,
        )
        for table in model.tables
    ]
    assert got["sent_bytes"] == dataclasses.asdict(sent[0] + sent[1])
    level = level_cost(model, want.shardings, setting)
    assert got["level"]["placed"]["gather_seconds"] == level.gather_seconds


def test_what_binds_is_the_slowest_part_of_the_busiest_chip(plan):
    got = plan("--slice", "4x4x8", "--json").json()
    memory, links = got["chip_gather_seconds"], got["chip_exchange_seconds"]
    assert got["seconds"] == max(*memory, *links)
    assert got["limit"] == ("memory" if max(memory) > max(links) else "links")
    assert got["rebalancing_gain"] is None
    slow = plan("--slice", "4x4x8", "--dense-ms", 100, "--json").json()
    assert (slow["limit"], slow["seconds"]) == ("dense", 0.1)


def test_tables_go_where_the_user_says(plan):
    options = ["--slice", "2x2x2", "--replicate", "items", "--shard", "users=4x2", "--json"]
    users, items = plan(*options).json()["tables"]
    assert items["chips"] == list(range(8))
    assert users["sharding"] == str(Sharding(rows=4, columns=2))
    assert sorted(users["chips"]) == list(range(8))


def test_a_recipe_stores_tables_and_says_how(plan, file):
    got = plan("--slice", "2x2x2", "--recipe", "int8", "--json").json()
    stored = store_tables(read_embedding_model(file), PRESETS["int8"])
    assert [each["nbytes"] for each in got["tables"]] == [each.nbytes for each in stored.tables]
    assert sum(got["chip_bytes"]["each"]) == pytest.approx(stored.nbytes, rel=1e-3)
    assert "int8, per channel" in plan("--slice", "2x2x2", "--recipe", "int8").out


def test_repeated_lookups_are_counted_if_asked(plan):
    once, often = (
        plan("--slice", "4x4x8", *flag, "--json").json()["level"]["tables"]["gather_seconds"]
        for flag in ([], ["--no-deduplicate"])
    )
    assert often > 1.2 * once


def test_chips_that_switches_join_are_counted_and_those_of_a_2d_torus_lie_in_a_plane(plan):
    assert plan("--chips", 8, "--json", chip="h100-sxm").json()["chips"] == 8
    assert plan("--slice", "4x8", "--json", chip="tpu-v3").json()["chips"] == 32


def test_the_example_is_of_20_billion_parameters_and_is_shown_table_by_table(gossamer, tmp_path):
    model = read_embedding_model(EXAMPLE)
    assert sum(each.rows * each.width for each in model.tables) == pytest.approx(20e9, rel=0.05)
    options = ["--chip", "tpu-v4", "--slice", "2x2x2", "--batch", 32, "--dense-ms", 3]
    plot = tmp_path / "a.png"
    shown = gossamer("plan", "embeddings", EXAMPLE, *options, "--plot", plot).out.splitlines()
    assert [line.split()[0] for line in shown[1:13]] == [each.name for each in model.tables]
    assert "bound by the dense part" in shown[14]
    assert plot.read_bytes().startswith(b"\x89PNG")
    got = gossamer("plan", "embeddings", EXAMPLE, *options, "--json").json()
    assert np.argmax(got["chip_bytes"]["each"]) < got["chips"] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice", "4x4x9"], "Legal near it are 4x4x8"),
        (["--chips", 8], "tpu-v4 is on a torus: give --slice"),
        (["--slice", "4x4x4", "--chip", "h100-sxm"], "h100-sxm is on no torus: give --chips"),
        (["--slice", "4x4x4", "--chip", "tpu-v3"], "whose --slice is like 16x16; got '4x4x4'"),
        (["--chips", 2, "--chip", "cpu"], "No links of cpu are known"),
        (["--slice", "2x2x2", "--recipe", "none"], "neither a recipe file nor a preset"),
        (["--slice", "2x2x2", "--recipe", "2:4"], "No rule of recipe '2:4' matches a table"),
        (["--slice", "2x2x2", "--shard", "users"], "users=4x2; got 'users'"),
        (["--slice", "2x2x2", "--shard", "users=16x1"], "16 shards, one a chip, and there are 8"),
        (["--slice", "2x2x2", "--replicate", "shops"], "Shardings are given for ['shops']"),
        (
            ["--slice", "2x2x2", "--replicate", "users", "--shard", "users=2x1"],
            "'users' is given two shardings",
        ),
        (["--slice", "2x2x2", "--dense-ms", -1], "--dense-ms needs 0 or more, got -1"),
        (["--slice", "2x2x2", "--batch", 0], "batch needs to be 1 sample or more"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_planned_is_wrong_use(plan, options, message):
    outcome = plan(*options)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())


def test_bad_files_are_wrong_use_that_names_their_faults(gossamer, tmp_path):
    def error(text):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        options = ["--chip", "tpu-v4", "--slice", "2x2x2", "--batch", 8]
        outcome = gossamer("plan", "embeddings", file, *options)
        assert outcome.status == 2
        return " ".join(outcome.err.split())

    assert "unknown" in error(SMALL + "shops: []\n")
    assert "which are not among ['users']" in error(
        "tables: [{name: users, rows: 10, width: 8}]\nfeatures: [{table: shops}]\n"
    )
    assert "cannot be read" in error("tables: [")
    large = "tables: [{name: users, rows: 10_000_000_000, width: 64}]\nfeatures: []\n"
    assert "75 chips would hold them" in error(large)
