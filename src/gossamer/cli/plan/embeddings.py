"""`gossamer plan embeddings`: how embedding tables are split over chips, and what a step takes."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.chip import ChipCommand

if TYPE_CHECKING:
    from gossamer.planning import (
        Chip,
        EmbeddingCost,
        EmbeddingModel,
        EmbeddingSetting,
        Placement,
        Sharding,
        Volumes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings(ChipCommand):
    """Where the tables of a model with embeddings go, whole, by rows, by columns or on every chip,
    so that the busiest chip has little to do; and the seconds of a training step, the longer of
    its sparse and its dense part.

    Example: gossamer plan embeddings examples/embeddings.yaml --chip tpu-v4 --slice 4x4x8
    --batch 32 --dense-ms 3
    """

    model: tyro.conf.Positional[Path]
    """YAML file of the model: its `tables` (name, rows, width and, if not 4 and 0, element_bytes
    and optimizer_bytes) and its `features` (table, valency, skew of Zipf's law)."""
    slice: str | None = None
    """How the chips are linked: 4x4x8, or 4x4x8_T with a twist; 16x16 for chips on a 2D torus."""
    chips: int | None = None
    """How many, for chips that switches join."""
    batch: int
    """Samples of each chip in a step."""
    dense_ms: float = 0.0
    """Milliseconds of a step without its embeddings."""
    recipe: str | None = None
    """A preset or a recipe file: tables take the bytes of their rules. A rule may name a table,
    such as users.kernel, or all of them by embedding.kernel, as presets do."""
    no_deduplicate: bool = False
    """Look a row up as often as samples ask for it; without this, once a step and chip."""
    replicate: tuple[str, ...] = ()
    """A table that every chip has; may be given several times."""
    shard: tuple[str, ...] = ()
    """A table and its parts, such as users=4x2: rows in 4 parts, columns in 2. May be given several
    times; other tables are split as is best."""
    plot: Path | None = None
    """PNG file for the milliseconds of each chip's memory and links."""

    def run(self, console: Console) -> dict[str, Any]:
        """Places the tables; see `gossamer.planning.place_tables`."""
        from gossamer.planning import (
            alike_shardings,
            level_cost,
            place_tables,
            placement_plot,
            read_embedding_model,
        )

        chip = self.found_chip()
        with arguments():
            if not self.dense_ms >= 0:
                raise ValueError(f"--dense-ms needs 0 or more, got {self.dense_ms}.")
            model, stored = self._stored(read_embedding_model(self.model))
            setting = self._setting(chip)
            dense = self.dense_ms / 1e3
            console.note(f"placing {len(model.tables)} tables on {setting.chips} chips ...")
            placement = place_tables(
                model, setting, dense_seconds=dense, shardings=self._shardings()
            )
        ways = alike_shardings(model, setting.chips) | {"placed": placement.shardings}
        if self.plot is not None:
            title = f"Embeddings on {setting.chips} {chip.name}, {self.batch} samples each"
            self.plot.write_bytes(placement_plot(placement, title=title))
        return {
            "chip": chip.name,
            "slice": self.slice,
            "chips": setting.chips,
            "batch": self.batch,
            "deduplicate": setting.deduplicate,
            "recipe": self.recipe,
            **_step(placement, setting),
            "sent_bytes": dataclasses.asdict(_volumes(model, placement, setting)),
            "chip_memory_bytes": chip.memory_bytes,
            "level": {
                way: _cost(level_cost(model, shardings, setting, dense_seconds=dense))
                for way, shardings in ways.items()
            },
            "tables": _tables(model, placement, stored, setting.chips),
            "plot": None if self.plot is None else str(self.plot),
        }

    def _stored(self, model: "EmbeddingModel") -> "tuple[EmbeddingModel, dict[str, str]]":
        """The model as the recipe stores it, and what it does to each table, in words."""
        from gossamer.planning import store_tables, table_rules
        from gossamer.recipe import Recipe

        if self.recipe is None:
            return model, {}
        recipe = Recipe.load(self.recipe)
        rules = table_rules(model, recipe)
        return store_tables(model, recipe), {name: rule.describe() for name, rule in rules.items()}

    def _setting(self, chip: "Chip") -> "EmbeddingSetting":
        from gossamer.planning import EmbeddingSetting, parse_slice

        common = {"chip": chip, "batch": self.batch, "deduplicate": not self.no_deduplicate}
        if not chip.torus_axes:
            if self.chips is None or self.slice is not None:
                raise WrongUseError(f"{chip.name} is on no torus: give --chips, how many.")
            return EmbeddingSetting(axes=(self.chips,), **common)
        if self.slice is None or self.chips is not None:
            raise WrongUseError(f"{chip.name} is on a torus: give --slice, how its chips lie.")
        if chip.torus_axes == 3:
            chosen = parse_slice(self.slice)
            return EmbeddingSetting(
                axes=chosen.sizes,
                wrapped=chosen.cubes > 0,
                link_load=chosen.topology.max_link_load or None,
                **common,
            )
        if not re.fullmatch(r"\d+x\d+", self.slice):
            raise WrongUseError(
                f"{chip.name} is on a 2D torus, whose --slice is like 16x16; got {self.slice!r}."
            )
        return EmbeddingSetting(axes=tuple(map(int, self.slice.split("x"))), **common)

    def _shardings(self) -> "dict[str, list[Sharding]]":
        """What the user says of tables, by their names."""
        from gossamer.planning import REPLICATED, Sharding

        found = {name: [REPLICATED] for name in self.replicate}
        for text in self.shard:
            parts = re.fullmatch(r"(.+)=(\d+)x(\d+)", text)
            if parts is None:
                raise WrongUseError(f"--shard needs a table and parts, users=4x2; got {text!r}.")
            name, rows, columns = parts.groups()
            if name in found:
                raise WrongUseError(f"Table {name!r} is given two shardings; give one.")
            found[name] = [Sharding(rows=int(rows), columns=int(columns))]
        return found

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The tables, the step, and what it would be if all tables were split alike."""
        for line in aligned(_table_rows(result), words=2):
            console.out.print(line)
        console.out.print()
        for sentence in _sentences(result):
            console.out.print(sentence)
        console.out.print("\nlower bounds, if all chips had equal shares of every table's work:")
        rows = [["tables split by", "memory, ms", "links, ms", "step, ms"]]
        for way, cost in result["level"].items():
            names = ("gather_seconds", "exchange_seconds", "seconds")
            rows.append([_WAYS[way], *(f"{1e3 * cost[name]:.3f}" for name in names)])
        for line in aligned(rows, words=1):
            console.out.print(line)
        if result["plot"]:
            console.out.print(f"\nmilliseconds of each chip: {result['plot']}")


_WAYS = {"rows": "rows", "columns": "columns", "tables": "nothing (whole)", "placed": "as placed"}


def _step(placement: "Placement", setting: "EmbeddingSetting") -> dict[str, Any]:
    """Seconds and bytes, and of the busiest chip what takes them."""
    from gossamer.planning import rebalancing_gain

    cost = placement.cost
    memory, links = placement.chip_gather_seconds, placement.chip_exchange_seconds
    seconds, dense = cost.step_seconds, cost.dense_seconds
    return {
        **_cost(cost),
        "samples_per_second": setting.chips * setting.batch / seconds if seconds else math.inf,
        "limit": "dense" if dense and dense >= cost.sparse_seconds else placement.limit,
        "imbalance": placement.imbalance,
        "rebalancing_gain": rebalancing_gain(cost.sparse_seconds, dense) if dense else None,
        "chip_bytes": {
            "max": float(placement.chip_bytes.max()),
            "mean": float(placement.chip_bytes.mean()),
            "each": placement.chip_bytes.tolist(),
        },
        "chip_gather_seconds": memory.tolist(),
        "chip_exchange_seconds": links.tolist(),
    }


def _cost(cost: "EmbeddingCost") -> dict[str, float]:
    return {"seconds": cost.step_seconds, **dataclasses.asdict(cost)}


def _volumes(
    model: "EmbeddingModel", placement: "Placement", setting: "EmbeddingSetting"
) -> "Volumes":
    """What a chip sends of all tables, on average."""
    from gossamer.planning import Volumes, sharding_volumes

    parts = (
        sharding_volumes(
            table,
            model.features_of(table),
            placement.shardings[table.name],
            chips=setting.chips,
            batch=setting.batch,
            id_bytes=setting.id_bytes,
            deduplicate=setting.deduplicate,
        )
        for table in model.tables
    )
    return sum(parts, Volumes())


def _tables(
    model: "EmbeddingModel", placement: "Placement", stored: dict[str, str], chips: int
) -> list[dict[str, Any]]:
    rows = []
    for table in model.tables:
        sharding = placement.shardings[table.name]
        held = list(range(chips)) if sharding.replicated else placement.chips[table.name].tolist()
        rows.append(
            {
                "name": table.name,
                "rows": table.rows,
                "width": table.width,
                "lookups_per_sample": sum(each.valency for each in model.features_of(table)),
                "stored": stored.get(table.name),
                "row_bytes": table.row_bytes,
                "nbytes": table.nbytes,
                "sharding": str(sharding),
                "shards": dataclasses.asdict(sharding),
                "chips": held,
            }
        )
    return rows


def _table_rows(result: dict[str, Any]) -> list[list[str]]:
    """Lines of the tables' table."""
    header = ["table", "split", "chips", "rows", "width", "lookups a sample", "GiB"]
    recipe = result["recipe"] is not None
    rows = [[*header, "stored"] if recipe else header]
    for table in result["tables"]:
        cells = [
            table["name"],
            table["sharding"],
            str(len(table["chips"])),
            f"{table['rows']:,}",
            str(table["width"]),
            f"{table['lookups_per_sample']:g}",
            f"{table['nbytes'] / 2**30:.3f}",
        ]
        rows.append([*cells, table["stored"] or "as it is"] if recipe else cells)
    return rows


def _sentences(result: dict[str, Any]) -> Iterator[str]:
    """The step, the bytes of chips, and what they send."""
    memory, links, dense = (
        1e3 * result[f"{part}_seconds"] for part in ("gather", "exchange", "dense")
    )
    limit = "the dense part" if result["limit"] == "dense" else result["limit"]
    yield (
        f"{1e3 * result['seconds']:.3f} ms a step, {result['samples_per_second']:,.0f} samples/s, "
        f"bound by {limit}: memory {memory:.3f} ms, links {links:.3f} ms, the dense part "
        f"{dense:.3f} ms"
    )
    if result["rebalancing_gain"] is not None:
        yield (
            f"{result['rebalancing_gain']:.2f} times as fast if work could move between the dense "
            "part and the others"
        )
    size = result["chip_bytes"]
    yield (
        f"{size['max'] / 2**30:.2f} of {result['chip_memory_bytes'] / 2**30:.2f} GiB on the "
        f"fullest chip, {size['mean'] / 2**30:.2f} on average; the busiest chip has "
        f"{result['imbalance']:.3f} times the mean to do"
    )
    sent = ", ".join(f"{name} {_bytes(n)}" for name, n in result["sent_bytes"].items() if n)
    yield f"a chip sends a step: {sent or 'nothing'}"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
