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
