"""`gossamer compress`: a model in, a smaller model and a report out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from gossamer.cli.console import Console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compress:
    """Prune, quantize and pack a model in one shot, without training.

    Example: gossamer compress smollm2 --recipe 2:4-int4 --method sparsegpt --out small
    """

    model: tyro.conf.Positional[str]
    """A saved model, a Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word
    smollm2."""
    recipe: str
    """A preset such as int8, int4, 2:4, 2:4-int4, 1:4-int2, or a recipe file (YAML)."""
    out: Path
    """Folder for the result; an interrupted run with the same arguments resumes."""
    method: Literal["rtn", "magnitude", "random", "wanda", "sparsegpt"] | None = None
    """How weights are chosen and rounded; by default sparsegpt where the recipe has a pattern, else
    rtn (round to nearest)."""
    calibration: str | None = None
    """Text file whose activations guide wanda and sparsegpt; by default the text that every Python
    has (builtin)."""
    sequences: int = 64
    """Calibration sequences."""
    sequence_length: int = 512
    """Tokens of a calibration sequence."""
    seed: int = 0
    """Decides which sequences are drawn, and what the random method draws."""
    text: str | None = None
    """Text file on which perplexity is measured before and after; by default the text that every
    Python has, a part that calibration does not read."""
    context: int = 1024
    """Tokens of a perplexity window, at most the model's positions."""
    windows: int = 4
    """Windows of the perplexity before and after; 0 leaves it out."""
    overwrite: bool = False
    """Replace the output folder when it exists; the old one stays whole until the new is done."""

    def run(self, console: "Console") -> dict[str, Any]:
        """Compresses, and returns what `report.json` holds."""
        from gossamer.compression import one_shot
        from gossamer.loading import load
        from gossamer.recipe import Recipe

        recipe = Recipe.load(self.recipe)
        checkpoint = load(self.model)
        evaluation = self._evaluation(checkpoint)
        _, report = one_shot(
            checkpoint,
            recipe,
            method=self.method,
            calibration=self.calibration,
            sequences=self.sequences,
            sequence_length=self.sequence_length,
            seed=self.seed,
            out=self.out,
            overwrite=self.overwrite,
            evaluation=evaluation,
            progress=console.stage,
        )
        return report.to_dict()
