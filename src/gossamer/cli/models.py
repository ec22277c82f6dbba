"""What commands that run a model share: opening it, and what it is judged by."""

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from gossamer.compression import PairEvaluation
    from gossamer.loading import Checkpoint

Activations: TypeAlias = Literal["float32", "int8", "int4"]
Judge: TypeAlias = Literal["text", "images", "pairs"]
"""What models of a kind are judged by, and the option that names it."""

_IS: dict[Judge, str] = {
    "text": "is a language model",
    "images": "classifies images",
    "pairs": "is an encoder-decoder",
}
_ARE: dict[Judge, str] = {
    "text": "language models",
    "images": "models that classify them",
    "pairs": "encoder-decoders",
}


def open_model(model: str, activations: Activations | None) -> "Checkpoint":
    """Loads a model; None leaves the inputs of its kernels as its recipe has them."""
    from gossamer.loading import load
    from gossamer.quantization import Int

    checkpoint = load(model)
    if activations is None:
        return checkpoint
    bits = {"float32": None, "int8": 8, "int4": 4}[activations]
    return checkpoint.with_activations(None if bits is None else Int(bits))


def judged_by(
    checkpoint: "Checkpoint",
    *,
    text: str | None = None,
    images: str | None = None,
    pairs: str | None = None,
) -> Judge:
    """What a model is judged by, after its kind.

    Args:
        checkpoint: the model.
        text: of the option --text.
        images: of the option --images.
        pairs: of the option --pairs.

    Raises:
        ValueError: an option is for another kind of model.
    """
    from gossamer.models import T5Config, ViTConfig

    config = checkpoint.config
    judge: Judge = "text"
    if isinstance(config, ViTConfig):
        judge = "images"
    elif isinstance(config, T5Config):
        judge = "pairs"
    given: dict[Judge, str | None] = {"text": text, "images": images, "pairs": pairs}
    for option, value in given.items():
        if value is not None and option != judge:
            raise ValueError(
                f"Model {checkpoint.source.get('name')!r} {_IS[judge]}, and --{option} is for "
                f"{_ARE[option]}: give --{judge}."
            )
    return judge


def evaluation_pairs(
    checkpoint: "Checkpoint", file: str, sentences: int | None
) -> "PairEvaluation":
    """Reads pairs for an encoder-decoder, those of the first `sentences` different sources.

    Raises:
        ValueError: the file is no file of pairs, or the model cannot translate them.
    """
    from pathlib import Path

    from gossamer.compression import PairEvaluation
    from gossamer.data import read_pairs
    from gossamer.evaluation import check_pairs

    pairs = read_pairs(file)
    first = set(list(dict.fromkeys(pair.source for pair in pairs))[:sentences])
    chosen = [pair for pair in pairs if pair.source in first]
    check_pairs(checkpoint, chosen)
    return PairEvaluation(source=Path(file).name, pairs=chosen)
