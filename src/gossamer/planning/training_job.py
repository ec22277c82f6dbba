"""What is trained, on which chips, and what of it overlaps: all but how it is partitioned."""

import dataclasses

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, StepConstants
from gossamer.planning.shapes import ModelShape
from gossamer.planning.stored_weights import Weights
from gossamer.planning.training_partition import TrainingPartition


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Steps of a model that are yet to be partitioned.

    Attributes:
        shape: of the model: a decoder of text.
        chip: of which slices are made, on a torus.
        batch: sequences of a step.
        sequence: tokens of each.
        overlap: whether weights are gathered, and gradients summed, while products go on.
        weights: what the forward pass multiplies by; products of integers take less time.
        constants: losses.

    Raises:
        ValueError: a size is not positive, the model is no decoder of text, or the chip is on no
            torus.
    """

    shape: ModelShape
    chip: Chip
    batch: int
    sequence: int
    overlap: bool = True
    weights: Weights = "bf16"
    constants: StepConstants = CALIBRATED

    def __post_init__(self) -> None:
        for name in ("batch", "sequence"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a step needs 1 or more, got {getattr(self, name)}.")
        if self.shape.encoder_layers or not self.shape.generates:
            raise ValueError(
                "Steps of training are of models with one stack that generate text, and "
                f"{self.shape.name} is none; give parameters and a measured MFU instead."
            )
        if not self.chip.torus_axes:
            raise ValueError(
                f"Training is partitioned over slices of a torus, and {self.chip.name} is on none; "
                "give parameters and a measured MFU instead."
            )

    def tokens(self, partition: TrainingPartition, microbatches: np.ndarray) -> np.ndarray:
        """Of a microbatch, in each part of data and model1."""
        return self.batch * self.sequence / (partition.sequence_parts * microbatches)
