"""What commands that run a model share: opening it, and what it is judged by."""

from collections.abc import Mapping
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
    "images": "models that classify images",
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
    text: Mapping[str, str | int | None],
    images: Mapping[str, str | int | None],
    pairs: Mapping[str, str | int | None],
) -> Judge:
    """What a model is judged by, after its kind.

    Args:
        checkpoint: the model.
        text: options for language models by name; those that are not None were given.
        images: options for vision models.
        pairs: options for encoder-decoders.

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
    kinds: dict[Judge, Mapping[str, str | int | None]]
    kinds = {"text": text, "images": images, "pairs": pairs}
    for kind, options in kinds.items():
        given = [name for name, value in options.items() if value is not None]
        if given and kind != judge:
            raise ValueError(
                f"Model {checkpoint.source.get('name')!r} {_IS[judge]}, and --{given[0]} is for "
                f"{_ARE[kind]}: give --{judge}."
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
