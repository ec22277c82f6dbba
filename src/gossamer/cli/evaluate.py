"""`gossamer eval`: a model's perplexity on a text, accuracy on images, or BLEU on pairs."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gossamer.cli.console import Command, Console, WrongUseError, check_sentences
from gossamer.cli.models import Activations, evaluation_pairs, judged_by, open_model
from gossamer.cli.texts import evaluation_windows

if TYPE_CHECKING:
    from gossamer.loading import Checkpoint

WINDOWS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a language model's perplexity on a text, in windows that do not overlap, a vision
    model's accuracy on images, or how near an encoder-decoder's translations come to given ones.

    Example: gossamer eval small --text wiki.test.raw --context 1024 --windows 8
    """

    model: tyro.conf.Positional[str]
    """A saved model, a Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word
    smollm2."""
    text: str | None = None
    """Text file, UTF-8, perhaps .gz or .xz. Without it, a text that every Python has."""
    context: int | None = None
    """Tokens of a window. Without it, 1024 or the model's positions."""
    windows: int | None = None
    """How many windows, from the start of the text. Without it, 8."""
    images: str | None = None
    """Labelled images for a vision model: a folder with a sub-folder for each class, an .npz with x
    and y, or the word digits."""
    pairs: str | None = None
    """Pairs for an encoder-decoder: a text file with two columns and a tab between them, perhaps
    .gz or .xz. Lines with the same first column are several translations of one sentence."""
    sentences: int | None = None
    """How many different sentences of the pairs, from the start of the file. Without it, all."""
    activations: Annotated[Activations | None, tyro.conf.arg(metavar="{float32,int8,int4}")] = None
    """How inputs of quantized kernels are multiplied: as floats, or quantized row by row. Without
    it, as the model was compressed for."""

    def run(self, console: Console) -> dict[str, Any]:
        """Evaluates; see `gossamer.evaluation.Perplexity`, `Accuracy`, `Translations`."""
        windows = WINDOWS if self.windows is None else self.windows
        if windows < 1 or (self.context is not None and self.context < 2):
            raise WrongUseError("--windows needs 1 or more and --context 2 or more.")
        check_sentences(self.sentences, self.pairs)
        from gossamer.evaluation import perplexity
        from gossamer.models import decoder_config

        checkpoint = open_model(self.model, self.activations)
        judge = judged_by(
            checkpoint,
            text={"text": self.text, "context": self.context, "windows": self.windows},
            images={"images": self.images},
            pairs={"pairs": self.pairs},
        )
        if judge == "images":
            return self._accuracy(checkpoint, console)
        if judge == "pairs":
            return self._bleu(checkpoint, console)
        context = self.context or min(1024, decoder_config(checkpoint.config).max_positions)
        cut = evaluation_windows(checkpoint, self.text, context, windows)
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

    def _bleu(self, checkpoint: "Checkpoint", console: Console) -> dict[str, Any]:
        from gossamer.evaluation import bleu, bleu_steps, given_translations

        if self.pairs is None:
            raise ValueError(
                f"Model {self.model!r} is an encoder-decoder: give texts and their translations by "
                "--pairs, a text file with two columns and a tab between them."
            )
        given = evaluation_pairs(checkpoint, self.pairs, self.sentences)
        advance = console.stage("BLEU", bleu_steps(given.pairs))
        found = bleu(checkpoint, given.pairs, max_tokens=given.max_tokens, advance=advance)
        stage = functools.partial(console.stage, "cross-entropy")
        likelihood = given_translations(checkpoint, given.pairs, stage)
        names = ("bleu", "signature", "sentences", "seconds", "words_per_second")
        result = {name: getattr(found, name) for name in names}
        names = ("cross_entropy", "predictions")
        result |= {name: getattr(likelihood, name) for name in names}
        return result | {"source": given.source}

    def show(self, result: dict[str, Any], console: Console) -> None:
        """One line, or two."""
        if "accuracy" in result:
            console.out.print(
                f"accuracy {result['accuracy']:.2%}, cross-entropy {result['cross_entropy']:.4f}, "
                f"on {result['images']} images of {result['source']}, in {result['seconds']:.1f} s"
            )
            return
        if "bleu" in result:
            console.out.print(
                f"BLEU {result['bleu']:.2f} on {result['sentences']} sentences of "
                f"{result['source']}, in {result['seconds']:.1f} s, "
                f"{result['words_per_second']:.0f} words/s ({result['signature']})"
            )
            console.out.print(
                f"cross-entropy {result['cross_entropy']:.4f} a token of what people wrote, over "
                f"{result['predictions']} predictions"
            )
            return
        console.out.print(
            f"perplexity {result['perplexity']:.4f} over {result['predictions']} predictions of "
            f"{result['text']}, {result['windows']} windows of {result['context']} tokens, in "
            f"{result['seconds']:.1f} s"
        )
