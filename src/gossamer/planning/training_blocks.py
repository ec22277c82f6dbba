"""Seconds of a block's forward and backward pass, of one microbatch on one chip.

Products, gathered weights and collectives of activations; see `gossamer.planning.training_time`.
"""

import dataclasses

import numpy as np

from gossamer.planning.layer_time import hops, score_seconds, seconds_per_byte
from gossamer.planning.layouts import Count
from gossamer.planning.meshes import Mesh
from gossamer.planning.partition_memory import ACTIVATION_BYTES
from gossamer.planning.shapes import ModelShape
from gossamer.planning.stored_weights import store_weights
from gossamer.planning.training_job import TrainingJob
from gossamer.planning.training_memory import WEIGHT_BYTES, layer_weights
from gossamer.planning.training_partition import FactorAxes, TrainingPartition

BACKWARD = 2
"""Products of the backward pass for each of the forward pass."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPass:
    """Seconds of one block and one microbatch on one chip, in one direction; may be arrays.

    Attributes:
        products: with weights.
        reading: weights.
        gathering: weights, and scattering their gradients.
        attending: products of attention.
        looking: at scores in the large memory.
        moving: activations.
        fixed: whatever the sizes.
        overlap: whether weights are gathered while products go on.
    """

    products: Count
    reading: Count
    gathering: Count
    attending: Count
    looking: Count
    moving: Count
    fixed: Count
    overlap: bool

    @property
    def together(self) -> Count:
        """Of products with weights, and of reading and gathering these."""
        products = np.maximum(self.products, self.reading)
        if not self.overlap:
            return products + self.gathering
        return np.maximum(products, self.gathering)

    @property
    def seconds(self) -> Count:
        """In all."""
        return self.together + self.attending + self.looking + self.moving + self.fixed


def activation_rounds(
    shape: ModelShape, partition: TrainingPartition, rematerialize: bool
) -> tuple[int, int]:
    """How often a block's activations go over model2, forward and backward.

    An all-gather or a reduce-scatter is one round, an all-reduce two. 1D activations are summed
    behind each sublayer, and their gradients before it. 2D ones are gathered before each sublayer
    and scattered behind it, and their gradients too. What is computed again goes again, but for the
    sum behind the block's last sublayer, which no gradient needs.

    Example:
        >>> from gossamer.planning import find_shape, parse_partition
        >>> for name in ("1,1,64,8 1D/2D", "1,1,64,8 2D/2D"):
        ...     activation_rounds(find_shape("gpt-3-175b"), parse_partition(name), True)
        (4, 6)
        (4, 7)
    """
    if partition.model2 == 1:
        return 0, 0
    once = 2 * len(shape.sublayers("prefill"))
    again = once - (1 if partition.activations == 2 else 2)
    return once, once + (again if rematerialize else 0)


def block_passes(
    job: TrainingJob,
    mesh: Mesh,
    axes: FactorAxes,
    partition: TrainingPartition,
    tokens: Count,
    rematerialize: bool,
) -> tuple[BlockPass, BlockPass]:
    """A block's forward and backward pass.

    Args:
        job: whose blocks they are.
        mesh: the slice.
        axes: on which the partition lies.
        partition: of the slice's chips.
        tokens: of a microbatch in each part of data and model1; may be an array.
        rematerialize: whether the block is computed again for its backward pass.
    """
    shape, chip, constants = job.shape, job.chip, job.constants
    held = layer_weights(shape, partition.model2)
    products = 2 * tokens * held / (chip.bf16_flops * constants.matmul_efficiency)
    # Zeros are multiplied like other weights while they are trained.
    stored = store_weights(shape, job.weights)
    forward = products * stored.relative_compute(chip, skip_zeros=False)
    last = shape.sublayers("prefill")[-1].out_width * shape.d_model / partition.model2
    again = forward * (1 - last / held) if rematerialize else 0.0
    reading = WEIGHT_BYTES * held / chip.memory_bandwidth
    gathering = 0.0
    if partition.weights == 2:
        per_byte = seconds_per_byte("all-gather", axes.model1, chip, mesh, constants)
        gathering = WEIGHT_BYTES * held * per_byte
    modules = sum(sublayer.attends for sublayer in shape.sublayers("prefill"))
    # Every token looks at the whole sequence, as in `layer_time`.
    scores = tokens * job.sequence * shape.heads / partition.model2
    attending, looking = (
        modules * seconds for seconds in score_seconds(scores, shape.head_dim, chip, constants)
    )
    round_bytes = ACTIVATION_BYTES * tokens * shape.d_model
    moving = round_bytes * seconds_per_byte("all-gather", axes.model2, chip, mesh, constants)
    hopping = constants.hop_seconds * hops(axes.model2)
    rounds = activation_rounds(shape, partition, rematerialize)
    passes = BACKWARD + rematerialize
    return (
        BlockPass(
            products=forward,
            reading=reading,
            gathering=gathering,
            attending=attending,
            looking=looking,
            moving=rounds[0] * moving,
            fixed=constants.fixed_seconds + rounds[0] * hopping,
            overlap=job.overlap,
        ),
        BlockPass(
            products=again + BACKWARD * products,
            reading=passes * reading,
            gathering=2 * gathering,  # weights come, and their gradients go
            attending=passes * attending,
            looking=passes * looking,
            moving=rounds[1] * moving,
            fixed=passes * constants.fixed_seconds + rounds[1] * hopping,
            overlap=job.overlap,
        ),
    )
