"""What commands that run a model share: opening it with the numerics that were asked for."""

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from gossamer.loading import Checkpoint

Activations: TypeAlias = Literal["float32", "int8", "int4"]


def open_model(model: str, activations: Activations | None) -> "Checkpoint":
    """Loads a model; None leaves the inputs of its kernels as its recipe has them."""
    from gossamer.loading import load
    from gossamer.quantization import Int

    checkpoint = load(model)
    if activations is None:
        return checkpoint
    bits = {"float32": None, "int8": 8, "int4": 4}[activations]
    return checkpoint.with_activations(None if bits is None else Int(bits))


def check_images_option(checkpoint: "Checkpoint", images: str | None, text: str | None) -> bool:
    """Whether a model is judged by images, not by a text.

    Raises:
        ValueError: the options are for the other kind of model.
    """
    from gossamer.models import ViTConfig

    vision = isinstance(checkpoint.config, ViTConfig)
    if vision and text is not None:
        raise ValueError(
            f"Model {checkpoint.source.get('name')!r} classifies images, and --text is for "
            "language models: give --images."
        )
    if not vision and images is not None:
        raise ValueError(
            f"Model {checkpoint.source.get('name')!r} is a language model, and --images is for "
            "models that classify them: give --text."
        )
    return vision
