"""`gossamer compress`: a model in, a smaller model and a report out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from gossamer.cli.console import (
    Command,
    Console,
    WrongUseError,
    arguments,
    check_free,
    check_sentences,
)
from gossamer.cli.models import evaluation_pairs, judged_by
from gossamer.cli.texts import evaluation_windows

if TYPE_CHECKING:
    from gossamer.compression import EvaluationData, Method
    from gossamer.loading import Checkpoint

WINDOWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compress(Command):
    """Prune, quantize and pack a model in one shot, without training.

    Example: gossamer compress smollm2 --recipe 2:4-int4 --method sparsegpt --out small
    """

    interrupted: ClassVar[str] = "Interrupted. The same command goes on where it stopped."

    model: tyro.conf.Positional[str]
    """A Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word smollm2."""
    recipe: str
    """A preset (int8, int4, int2, w8a8, 2:4, 2:4-int8, 2:4-int4, 4:8, 4:8-int4, 1:4-int4, 1:4-int2,
    50%, mxfp8, mxfp6, mxfp4, nvfp4, hbfp8, 2:4-mxfp4) or a recipe file in YAML."""
    out: Path
    """Folder for the result. The same command resumes a run that was interrupted."""
    method: (
        Literal[
            "rtn",
            "magnitude",
            "random",
            "wanda",
            "sparsegpt",
            "gptq",
            "wanda-gptq",
            "obr",
            "awq",
            "smoothquant",
        ]
        | None
    ) = None
    """How weights are chosen and rounded. Without it: sparsegpt where the recipe has a pattern,
    else rtn (round to nearest)."""
    act_order: bool | None = None
    """Of gptq and wanda-gptq: whether inputs with the largest mean square come first. Without it,
    they do."""
    damping: float | None = None
    """Of sparsegpt, gptq, wanda-gptq and obr: share of the Hessian's mean diagonal that is added to
    its diagonal. Without it, 0.01."""
    alpha: float | None = None
    """Of smoothquant: how much of the difficulty goes from activations into weights. Of obr: share
    of the inputs for whose rounding the others make up. Without it, 0.5."""
    rounding: Literal["rtn", "gptq"] | None = None
    """Of obr: how the inputs are rounded that make up for the others. Without it, gptq."""
    calibration: str | None = None
    """Text file whose activations guide the methods, and by which output errors are measured.
    Without it, all methods but rtn, magnitude and random read a text that every Python has. For a
    vision model images, as --images takes them; for an encoder-decoder pairs, as --pairs does."""
    sequences: int = 64
    """Calibration sequences, images, or rows of pairs."""
    sequence_length: int = 512
    """Tokens of a calibration sequence, or of a row of pairs on either side."""
    seed: int = 0
    """Decides which sequences are drawn, and what the random method draws."""
    text: str | None = None
    """Text file for the perplexity before and after. Without it, a text that every Python has, in
    a part that calibration does not read."""
    context: int | None = None
    """Tokens of a perplexity window. Without it, 1024 or the model's positions."""
    windows: int | None = None
    """Windows of the perplexity before and after; 0 leaves it out. Without it, 4."""
    images: str | None = None
    """Labelled images for a vision model's accuracy before and after: a folder with a sub-folder
    for each class, an .npz with x and y, or the word digits. Without it, accuracy is left out."""
    pairs: str | None = None
    """Pairs for an encoder-decoder's BLEU before and after: a text file with two columns and a tab
    between them. Without it, BLEU is left out."""
    sentences: int | None = None
    """How many different sentences of the pairs, from the start of the file. Without it, all."""
    overwrite: bool = False
    """Replace the output folder; it stays whole until the new one is complete."""

    def run(self, console: Console) -> dict[str, Any]:
        """Compresses; returns what `report.json` holds."""
        check_free(self.out, self.overwrite)
        if min(self.sequences, self.sequence_length) < 1 or (self.windows or 0) < 0:
            raise WrongUseError("--sequences and --sequence-length need 1 or more, --windows 0.")
        check_sentences(self.sentences, self.pairs)
        from gossamer.compression import one_shot
        from gossamer.loading import load
        from gossamer.recipe import Recipe

        with arguments():
            recipe = Recipe.load(self.recipe)
            method = self._method()
        checkpoint = load(self.model)
        _, report = one_shot(
            checkpoint,
            recipe,
            method=method,
            calibration=self.calibration,
            sequences=self.sequences,
            sequence_length=self.sequence_length,
            seed=self.seed,
            out=self.out,
            overwrite=self.overwrite,
            evaluation=self._evaluation(checkpoint),
            progress=console.stage,
        )
        return report.to_dict()

    def _evaluation(self, checkpoint: "Checkpoint") -> "EvaluationData | None":
        """What the model is judged by before and after; None where nothing was given for it."""
        from gossamer.evaluation import model_images
        from gossamer.models import decoder_config

        judge = judged_by(
            checkpoint,
            text={"text": self.text, "context": self.context, "windows": self.windows},
            images={"images": self.images},
            pairs={"pairs": self.pairs},
        )
        if judge == "images":
            return model_images(checkpoint, self.images) if self.images else None
        if judge == "pairs":
            found = self.pairs
            return evaluation_pairs(checkpoint, found, self.sentences) if found else None
        windows = WINDOWS if self.windows is None else self.windows
        if not windows:
            return None
        context = self.context or min(1024, decoder_config(checkpoint.config).max_positions)
        return evaluation_windows(checkpoint, self.text, context, windows)

    def _method(self) -> "Method | None":
        """The method with the settings that were given."""
        from gossamer.compression import make_method

        given = {
            "act_order": self.act_order,
            "damping": self.damping,
            "alpha": self.alpha,
            "rounding": self.rounding,
        }
        settings = {name: value for name, value in given.items() if value is not None}
        if self.method is None:
            if settings:
                raise ValueError(f"Settings {list(settings)} are of a method: add --method.")
            return None
        return make_method(self.method, settings)

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A few lines, and where the report is."""
        share = result["bytes_on_disk"] / result["bytes_float32"]
        console.out.print(
            f"{self.out}: {result['bytes_on_disk'] / 1e6:.1f} MB, {share:.1%} of float32, "
            f"{result['bits_per_weight']:.3f} bits a weight"
        )
        if change := result["perplexity"]:
            console.out.print(
                f"perplexity {change['before']:.2f} before, {change['after']:.2f} after "
                f"({change['predictions']} predictions on {change['text']})"
            )
        if change := result["accuracy"]:
            console.out.print(
                f"accuracy {change['before']:.2%} before, {change['after']:.2%} after "
                f"({change['images']} images of {change['source']})"
            )
        if change := result["bleu"]:
            console.out.print(
                f"BLEU {change['before']:.2f} before, {change['after']:.2f} after "
                f"({change['sentences']} sentences of {change['source']}, {change['signature']})"
            )
        if result["rescaled"]:
            console.out.print(f"{len(result['rescaled'])} tensors without a rule rescaled")
        if result["untouched"]:
            console.out.print(f"{len(result['untouched'])} tensors left alone: no rule matches")
        console.out.print(f"report: {self.out / 'report.md'}")
