import pytest

from gossamer.planning import EmbeddingModel, Table, kernel_bytes, store_tables, table_rules
from gossamer.quantization import Int
from gossamer.recipe import PRESETS, Recipe, Rule

USERS = Table(name="users", rows=640, width=64, optimizer_bytes=4.0)
ITEMS = Table(name="items", rows=37, width=32)
MODEL = EmbeddingModel(tables=(USERS, ITEMS), features=())
WIDE, NARROW = Rule(path="users.kernel", weights=Int(8)), Rule(path=".*", weights=Int(4, group=32))


@pytest.mark.parametrize("preset", ["int8", "int4", "w8a8", "2:4-int4"])
def test_presets_store_tables_as_they_store_an_embedding(preset):
    stored = store_tables(MODEL, PRESETS[preset])
    for table, before in zip(stored.tables, MODEL.tables, strict=True):
        # Codes of a byte and a float32 scale for each row, as of a kernel's outputs; lanes of 16.
        rows = before.rows + -before.rows % 16
        assert table.row_bytes * table.rows == pytest.approx(rows * (before.width + 4))
        assert (table.optimizer_bytes, table.sent_bytes) == (
            before.optimizer_bytes,
            before.sent_bytes,
        )


def test_the_first_rule_that_matches_a_table_wins_and_others_stay_as_they_are():
    recipe = Recipe(rules=(WIDE, NARROW))
    assert table_rules(MODEL, recipe) == {"users": WIDE, "items": NARROW}
    users, items = store_tables(MODEL, recipe).tables
    assert users.row_bytes * users.rows == kernel_bytes((64, 640), WIDE)
    assert items.row_bytes * items.rows == pytest.approx(kernel_bytes((32, 37), NARROW))
    only_users = Recipe(rules=(WIDE, Rule(path="layers.*", weights=Int(8))))
    assert store_tables(MODEL, only_users).tables[1] == ITEMS


def test_a_rule_of_the_tables_own_comes_before_one_of_all_embeddings():
    everywhere = Rule(path=r"embedding\.kernel", weights=Int(4))
    assert table_rules(MODEL, Recipe(rules=(everywhere, WIDE))) == {
        "users": WIDE,
        "items": everywhere,
    }


def test_a_rule_that_leaves_a_table_alone_keeps_the_bytes_of_the_file():
    assert store_tables(MODEL, Recipe(rules=(Rule(path=".*"),))) == MODEL


def test_recipes_that_do_not_suit_are_refused_by_the_tables_name():
    with pytest.raises(ValueError, match=r"'2:4' matches a table; they are named users\.kernel"):
        store_tables(MODEL, PRESETS["2:4"])
    groups = Recipe.of(".*", weights=Int(4, group=64))
    with pytest.raises(ValueError, match=r"items\.kernel \(32, 37\): .*64"):
        store_tables(MODEL, groups)
