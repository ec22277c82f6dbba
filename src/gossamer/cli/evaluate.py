"""`gossamer eval`: a model's perplexity on a text, or its accuracy on images."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gossamer.cli.console import Command, Console, WrongUseError
from gossamer.cli.models import Activations, check_images_option, open_model
from gossamer.cli.texts import evaluation_windows

if TYPE_CHECKING:
    from gossamer.loading import Checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a language model's perplexity on a text, in windows that do not overlap, or a vision
    model's accuracy on images.

    Example: gossamer eval small --text wiki.test.raw --context 1024 --windows 8
    """

    model: tyro.conf.Positional[str]
    """A saved model, a Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word
    smollm2."""
    text: str | None = None
    """Text file, UTF-8, perhaps .gz or .xz. Without it, a text that every Python has."""
    context: int | None = None
    """Tokens of a window. Without it, 1024 or the model's positions."""
    windows: int = 8
    """How many windows, from the start of the text."""
    images: str | None = None
    """Labelled images for a vision model: a folder with a sub-folder for each class, an .npz with x
    and y, or the word digits."""
    activations: Annotated[Activations | None, tyro.conf.arg(metavar="{float32,int8,int4}")] = None
    """How inputs of quantized kernels are multiplied: as floats, or quantized row by row. Without
    it, as the model was compressed for."""

    def run(self, console: Console) -> dict[str, Any]:
        """Evaluates; see `gossamer.evaluation.Perplexity` and `Accuracy`."""
        if self.windows < 1 or (self.context is not None and self.context < 2):
            raise WrongUseError("--windows needs 1 or more and --context 2 or more.")
        from gossamer.evaluation import perplexity
        from gossamer.models import decoder_config

        checkpoint = open_model(self.model, self.activations)
        if check_images_option(checkpoint, self.images, self.text):
            return self._accuracy(checkpoint, console)
        context = self.context or min(1024, decoder_config(checkpoint.config).max_positions)
        cut = evaluation_windows(checkpoint, self.text, context, self.windows)
        advance = console.stage("perplexity", checkpoint.config.num_blocks)
        return dataclasses.asdict(perplexity(checkpoint, cut.tokens, advance)) | {"text": cut.text}

    def _accuracy(self, checkpoint: "Checkpoint", console: Console) -> dict[str, Any]:
        from gossamer.evaluation import accuracy, accuracy_steps, model_images

        if self.images is None:
            raise ValueError(
                f"Model {self.model!r} classifies images: give some by --images, a folder, an .npz "
                "or the word digits."
            )
        images = model_images(checkpoint, self.images)
        advance = console.stage("accuracy", accuracy_steps(checkpoint, images))
        found = accuracy(checkpoint, images, advance)
        return dataclasses.asdict(found) | {"source": images.source}

    def show(self, result: dict[str, Any], console: Console) -> None:
        """One line."""
        if "accuracy" in result:
            console.out.print(
                f"accuracy {result['accuracy']:.2%}, cross-entropy {result['cross_entropy']:.4f}, "
                f"on {result['images']} images of {result['source']}, in {result['seconds']:.1f} s"
            )
            return
        console.out.print(
            f"perplexity {result['perplexity']:.4f} over {result['predictions']} predictions of "
            f"{result['text']}, {result['windows']} windows of {result['context']} tokens, in "
            f"{result['seconds']:.1f} s"
        )
