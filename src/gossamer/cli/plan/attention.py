"""`gossamer plan attention`: whether to fuse attention on a chip, and with which block."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.chip import ChipCommand

if TYPE_CHECKING:
    from gossamer.planning import AttentionCost, AttentionModel, AttentionPlan

WAYS = ("fused", "staged", "unfused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(ChipCommand):
    """Whether to fuse attention, and with which block of queries, by FLAT's cost model: the best
    mapping fused, in one loop with scores in memory (staged), and step by step (unfused).

    Example: gossamer plan attention --model bert-base --chip flat-cloud --sequence 4096
    """

    model: str | None = None
    """A model of FLAT's: bert-base, transformer-xl, flaubert, t5-small or xlm. Without it, --heads
    and --head-dim."""
    heads: int | None = None
    """Heads of attention."""
    head_dim: int | None = None
    """Width of a head."""
    sequence: tuple[int, ...]
    """Tokens of a sequence; given several times, all are planned."""
    batch: int = 64
    """Sequences at once."""
    free_softmax: bool = False
    """Take softmax for free, as FLAT's own figures do."""
    plot: Path | None = None
    """PNG file for the utilization of the matrix unit over the length."""

    def run(self, console: Console) -> dict[str, Any]:
        """Plans each length; see `gossamer.planning.plan_attention`."""
        from gossamer.planning import attention_plans, attention_utilization_plot

        chip, model = self.found_chip(), self._model()
        with arguments():
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
        return {
            "chip": chip.name,
            "heads": model.heads,
            "head_dim": model.head_dim,
            "batch": self.batch,
            "softmax_charged": not self.free_softmax,
            "plans": [_plain(length, plan) for length, plan in plans.items()],
            "plot": None if self.plot is None else str(self.plot),
        }

    def _model(self) -> "AttentionModel":
        """The sizes, by name or as given."""
        from gossamer.planning import FLAT_MODELS, AttentionModel

        sizes = (self.heads, self.head_dim)
        if self.model is not None:
            if sizes != (None, None):
                raise WrongUseError("--model has its own heads: leave out --heads and --head-dim.")
            if self.model not in FLAT_MODELS:
                raise WrongUseError(
                    f"There is no model {self.model!r}; known are {', '.join(FLAT_MODELS)}. Others "
                    "are given by --heads and --head-dim."
                )
            return FLAT_MODELS[self.model]
        if self.heads is None or self.head_dim is None:
            raise WrongUseError("Attention needs --model, or --heads and --head-dim.")
        width = self.heads * self.head_dim
        return AttentionModel(heads=self.heads, head_dim=self.head_dim, feed_forward=4 * width)

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


def _cost(cost: "AttentionCost") -> dict[str, Any]:
    from gossamer.planning import attention_joules

    names = ("seconds", "utilization", "limit", "memory_bytes", "footprint_bytes", "spilled_share")
    return {name: getattr(cost, name) for name in names} | {
        "memory_joules": attention_joules(cost),
        "mapping": dataclasses.asdict(cost.mapping),
    }
