"""Bytes of embedding tables as a recipe stores them."""

import dataclasses
import re

from gossamer.planning.embeddings import EmbeddingModel, Table
from gossamer.planning.stored_weights import kernel_bytes
from gossamer.recipe import Recipe, Rule

EMBEDDING_PATH = "embedding.kernel"
"""What gossamer's own models call the kernel of their embedding."""


def table_rules(model: EmbeddingModel, recipe: Recipe) -> dict[str, Rule]:
    """The rule of each table, by the table's name; tables that no rule matches are left out.

    A table is the kernel `<name>.kernel`. Where no rule matches that path, a rule for
    `embedding.kernel` counts for every table: so presets store tables as they store a model's
    embedding. Rules that match no table are those of the network beside the tables.

    Raises:
        ValueError: no rule matches any table.

    Example:
        >>> model = EmbeddingModel(tables=(Table(name="users", rows=64, width=32),), features=())
        >>> table_rules(model, Recipe.load("int4"))["users"].describe()
        'int8, per channel, float32 scales'
    """
    found = {}
    for table in model.tables:
        paths = (f"{table.name}.kernel", EMBEDDING_PATH)
        rules = (rule for path in paths for rule in recipe.rules if re.fullmatch(rule.path, path))
        if (rule := next(rules, None)) is not None:
            found[table.name] = rule
    if not found:
        raise ValueError(
            f"No rule of recipe {recipe.name!r} matches a table; they are named "
            f"{model.tables[0].name}.kernel and so on, or {EMBEDDING_PATH} for all of them."
        )
    return found


def store_tables(model: EmbeddingModel, recipe: Recipe) -> EmbeddingModel:
    """The same model with tables as a recipe stores them.

    A table is a kernel `(width, rows)`, as gossamer stores embeddings: an output for each row, with
    scales of its own. Bytes are those that `pack` stores, floats that a pattern leaves are bf16.
    What no rule matches, what the optimizer keeps, and the sums and gradients that are sent stay as
    they are.

    Raises:
        ValueError: no rule matches any table, or a table does not divide into a format's groups:
            it is named.

    Example:
        >>> table = Table(name="users", rows=64, width=32)
        >>> [stored] = store_tables(
        ...     EmbeddingModel(tables=(table,), features=()), Recipe.load("int8")
        ... ).tables
        >>> stored.row_bytes, stored.sent_bytes  # 32 codes and a scale; 32 floats
        (36.0, 128.0)
    """
    rules = table_rules(model, recipe)
    tables = [_stored(table, rules.get(table.name)) for table in model.tables]
    return dataclasses.replace(model, tables=tuple(tables))


def _stored(table: Table, rule: Rule | None) -> Table:
    if rule is None or (rule.pattern is None and rule.weights is None):
        return table
    kernel = (table.width, table.rows)
    try:
        nbytes = kernel_bytes(kernel, rule)
    except ValueError as error:
        raise ValueError(f"{table.name}.kernel {kernel}: {error}") from error
    return dataclasses.replace(
        table,
        element_bytes=nbytes / (table.width * table.rows),
        vector_bytes=table.sent_bytes / table.width,
    )
