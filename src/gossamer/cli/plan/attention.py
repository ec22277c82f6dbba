"""`gossamer plan attention`: whether to fuse attention on a chip, and with which block."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.model import ModelCommand

if TYPE_CHECKING:
    from gossamer.planning import AttentionCost, AttentionModel, AttentionPlan, BlockCost
    from gossamer.recipe import Recipe

WAYS = ("fused", "staged", "unfused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(ModelCommand):
    """Whether to fuse attention, and with which block of queries, by FLAT's cost model: the best
    mapping fused, in one loop with scores in memory (staged), and step by step (unfused). With a
    recipe, also what share of a block's time attention has before and after weights are compressed.

    Example: gossamer plan attention --model bert-base --chip flat-cloud --sequence 4096
    """

    model: str | None = None
    """A model that is known, such as llama-2-7b, palm-540b or FLAT's bert-base, transformer-xl,
    flaubert, t5-small and xlm; a config.json; or a model as `gossamer compress` takes it. Without
    it, --heads and --head-dim."""
    heads: int | None = None
    """Heads of attention."""
    head_dim: int | None = None
    """Width of a head."""
    sequence: tuple[int, ...]
    """Tokens of a sequence; given several times, all are planned."""
    batch: int = 64
    """Sequences at once."""
    recipe: str | None = None
    """A preset or a recipe file for the weights of the block's linear layers. Without it, that of a
    compressed model."""
    free_softmax: bool = False
    """Take softmax for free, as FLAT's own figures do."""
    plot: Path | None = None
    """PNG file for the utilization of the matrix unit over the length."""

    def run(self, console: Console) -> dict[str, Any]:
        """Plans each length; see `gossamer.planning.plan_attention`."""
        from gossamer.planning import (
            attention_plans,
            attention_utilization_plot,
            block_cost,
            block_weights,
        )

        chip = self.found_chip()
        model, recipe = self._model()
        with arguments():
            stored = None if recipe is None else block_weights(chip, model, recipe)
            plans = attention_plans(
                chip,
                model,
                self.sequence,
                batch=self.batch,
                charge_softmax=not self.free_softmax,
            )
        if self.plot is not None:
            title = f"Attention on {chip.name}, {self.batch} sequences"
            self.plot.write_bytes(attention_utilization_plot(plans, title=title))
        blocks = {
            length: {
                "bf16": _block(block_cost(chip, model, plan.best)),
                "stored": stored and _block(block_cost(chip, model, plan.best, weights=stored)),
            }
            for length, plan in plans.items()
        }
        return {
            "chip": chip.name,
            "model": self.model,
            "recipe": recipe and recipe.name,
            "heads": model.heads,
            "head_dim": model.head_dim,
            "batch": self.batch,
            "softmax_charged": not self.free_softmax,
            "plans": [
                _plain(length, plan) | {"block": blocks[length]} for length, plan in plans.items()
            ],
            "plot": None if self.plot is None else str(self.plot),
        }

    def _model(self) -> "tuple[AttentionModel, Recipe | None]":
        """The sizes, by name or as given, and what the weights are stored by."""
        from gossamer.planning import FLAT_MODELS, AttentionModel, builtin_shapes
        from gossamer.recipe import Recipe

        with arguments():
            given = None if self.recipe is None else Recipe.load(self.recipe)
        sizes = (self.heads, self.head_dim)
        if self.model is not None:
            if sizes != (None, None):
                raise WrongUseError("--model has its own heads: leave out --heads and --head-dim.")
            # FLAT's t5-small is the encoder of the one that is known anyway.
            flat = {
                name: dataclasses.replace(model.block, name=name)
                for name, model in FLAT_MODELS.items()
                if name not in builtin_shapes()
            }
            shape, own = self.found_model(self.model, flat)
            return AttentionModel.of(shape), given or own
        if self.heads is None or self.head_dim is None:
            raise WrongUseError("Attention needs --model, or --heads and --head-dim.")
        width = self.heads * self.head_dim
        model = AttentionModel(heads=self.heads, head_dim=self.head_dim, feed_forward=4 * width)
        return model, given

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A line for each length."""
        header = ["tokens", "fuse", "limited by"]
        header += ["block of queries", *(f"{way}, ms" for way in WAYS), "speedup", "utilization"]
        rows = [
            [
                str(plan["sequence"]),
                "yes" if plan["fuse"] else "no",
                plan[plan["best"]]["limit"],
                str(plan["block_q"] or "-"),
                *(f"{1e3 * plan[way]['seconds']:.3f}" for way in WAYS),
                f"{plan['speedup']:.2f}",
                f"{plan[plan['best']]['utilization']:.1%}",
            ]
            for plan in result["plans"]
        ]
        for line in aligned([header, *rows], words=3):
            console.out.print(line)
        if result["recipe"] is not None:
            console.out.print("\nlinear layers of a block beside attention:")
            for line in aligned(_block_rows(result), words=0):
                console.out.print(line)
        if result["plot"]:
            console.out.print(f"utilization over the length: {result['plot']}")


def _plain(length: int, plan: "AttentionPlan") -> dict[str, Any]:
    costs = {way: getattr(plan, way) for way in WAYS}
    [best] = [way for way, cost in costs.items() if cost is plan.best]
    return {
        "sequence": length,
        "fuse": plan.fuse,
        "block_q": plan.block_q,
        "best": best,
        "speedup": plan.speedup,
        **{way: _cost(cost) for way, cost in costs.items()},
    }


def _block(cost: "BlockCost") -> dict[str, Any]:
    return {
        "seconds": cost.seconds,
        "attention_share": cost.attention_share,
        "linear_seconds": cost.linear_seconds,
    }


def _block_rows(result: dict[str, Any]) -> list[list[str]]:
    """A line for each length: seconds of the linear layers, and attention's share beside them."""
    names = {"bf16": "bf16", "stored": result["recipe"]}
    rows = [["tokens", "attention, ms"]]
    for name in names.values():
        rows[0] += [f"{name}, ms", "attention's share"]
    for plan in result["plans"]:
        cells = [str(plan["sequence"]), f"{1e3 * plan[plan['best']]['seconds']:.3f}"]
        for kind in names:
            block = plan["block"][kind]
            cells.append(f"{1e3 * sum(block['linear_seconds'].values()):.3f}")
            cells.append(f"{block['attention_share']:.1%}")
        rows.append(cells)
    return rows


def _cost(cost: "AttentionCost") -> dict[str, Any]:
    from gossamer.planning import attention_joules

    names = ("seconds", "utilization", "limit", "memory_bytes", "footprint_bytes", "spilled_share")
    return {name: getattr(cost, name) for name in names} | {
        "memory_joules": attention_joules(cost),
        "mapping": dataclasses.asdict(cost.mapping),
    }
