"""Memory that a training step takes of each chip, and what would fit.

Each parameter has a copy in bf16, a gradient in bf16, and a master copy and two moments of Adam in
float32. What blocks read is kept from the forward to the backward pass; with rematerialization only
the inputs of blocks are, and one block at a time is computed again. A pipeline runs one microbatch
forward, one backward, so that no stage keeps more microbatches than there are stages.

Source: Rajbhandari et al. 2020 (ZeRO), arXiv 1910.02054, section 3.1, for 16 bytes a parameter;
Narayanan et al. 2021, arXiv 2104.04473, section 2.2, for the schedule.
"""

import dataclasses
import math

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.layouts import Count
from gossamer.planning.partition_memory import ACTIVATION_BYTES
from gossamer.planning.shapes import ModelShape
from gossamer.planning.training_partition import TrainingPartition

STATE_BYTES = 16
"""Of a parameter, with its gradient and Adam's moments."""
WEIGHT_BYTES = 2
"""Of a weight or a gradient that is gathered or summed over chips: bf16."""
_SCORE_BYTES = 4  # of a score of the vocabulary: float32
_PARTS = {"states": "states", "activations": "activations", "gathered": "gathered weights"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of each chip; arrays where microbatches are.

    Attributes:
        states: of parameters, gradients and Adam's moments.
        activations: that are kept for the backward pass, of the block in work, and of scores of
            the vocabulary.
        gathered: of weights while they are used: a block's, the next one's, and its gradient.
    """

    states: Count
    activations: Count
    gathered: Count

    @property
    def nbytes(self) -> Count:
        """In all."""
        return self.states + self.activations + self.gathered


def layer_weights(shape: ModelShape, model2: int) -> float:
    """Weights of a block in one part of model2; keys and values have no more parts than heads.

    Args:
        shape: of the model.
        model2: parts.

    Example:
        >>> from gossamer.planning import find_shape
        >>> palm = find_shape("palm-62b")
        >>> 8 * layer_weights(palm, 8) / layer_weights(palm, 1)  # one head of keys and values
        1.03...
    """
    [stack] = shape.stacks
    whole = sum(map(math.prod, shape.block_kernels(stack).values()))
    keys = shape.d_model * sum(each.key_value_width for each in shape.sublayers("prefill"))
    return (whole - keys) / model2 + keys / math.gcd(shape.kv_heads, model2)


def weights_per_chip(shape: ModelShape, partition: TrainingPartition) -> float:
    """Parameters that rest on a chip; those outside the blocks are divided over stages too."""
    blocks = shape.layers * layer_weights(shape, partition.model2)
    ends = sum(map(math.prod, shape.end_kernels.values())) / partition.model2
    return (blocks + ends) / partition.pipeline / (partition.weight_parts // partition.model2)


def training_memory_use(
    shape: ModelShape,
    partition: TrainingPartition,
    *,
    batch: int,
    sequence: int,
    microbatches: Count,
    rematerialize: bool,
) -> TrainingMemory:
    """Bytes of each chip.

    Args:
        shape: of the model.
        partition: of the chips.
        batch: sequences of a step.
        sequence: tokens of each.
        microbatches: that each copy's sequences go through in turn; may be an array.
        rematerialize: whether only inputs of blocks are kept.

    Example:
        >>> from gossamer.planning import find_shape, parse_partition
        >>> use = training_memory_use(find_shape("gpt-3-175b"), parse_partition("16,4,1,8"),
        ...                           batch=1536, sequence=2048, microbatches=384,
        ...                           rematerialize=True)
        >>> print(f"{use.states / 2**30:.1f} + {use.activations / 2**30:.1f} GiB")
        20.3 + 5.2 GiB
    """
    tokens = batch * sequence / (partition.sequence_parts * microbatches)
    kept, layer = _activations(shape, partition, sequence)
    flying = np.minimum(partition.pipeline, microbatches)
    layers = shape.layers / partition.pipeline
    # The block in work has its activations, if they were not kept, and their gradients.
    elements = flying * layers * (kept if rematerialize else layer) + layer * (1 + rematerialize)
    scores = _SCORE_BYTES * shape.vocabulary / (partition.model2 * partition.pipeline)
    gathers = partition.weights == 2 and partition.model1 > 1
    return TrainingMemory(
        states=STATE_BYTES * weights_per_chip(shape, partition),
        activations=tokens * (ACTIVATION_BYTES * elements + scores),
        gathered=3 * WEIGHT_BYTES * layer_weights(shape, partition.model2) * gathers,
    )


def check_training_fits(
    shape: ModelShape,
    chip: Chip,
    partition: TrainingPartition,
    *,
    batch: int,
    sequence: int,
    microbatches: int,
    rematerialize: bool,
) -> None:
    """Raises where a chip's memory is too small; arguments as of `training_memory_use`.

    Raises:
        ValueError: it says by how much, and what would fit.
    """
    settings = {"batch": batch, "sequence": sequence}
    use = training_memory_use(
        shape, partition, **settings, microbatches=microbatches, rematerialize=rematerialize
    )
    if use.nbytes <= chip.memory_bytes:
        return
    parts = ", ".join(
        f"{getattr(use, field) / 2**30:.1f} GiB of {name}" for field, name in _PARTS.items()
    )
    counts = microbatch_counts(partition, batch)
    least = np.asarray(
        training_memory_use(
            shape, partition, **settings, microbatches=counts, rematerialize=True
        ).nbytes
    )
    fitting = counts[least <= chip.memory_bytes]
    if fitting.size:
        way = f"{fitting.min()} microbatches with rematerialization would fit."
    elif use.states > chip.memory_bytes:
        whole = float(use.states) * partition.pipeline * partition.weight_parts
        way = (
            "Weights and Adam's moments alone need to be divided over "
            f"{math.ceil(whole / chip.memory_bytes)} chips or more by stages, model2 and 2D "
            f"weights, and are over {partition.pipeline * partition.weight_parts}."
        )
    else:
        way = (
            f"No number of microbatches fits: the least it needs is {least.min() / 2**30:.1f} GiB; "
            "more stages, 2D activations or a shorter sequence take less."
        )
    raise ValueError(
        f"{shape.name} partitioned as {partition} needs {use.nbytes / 2**30:.1f} GiB of each "
        f"{chip.name} ({parts}), {(use.nbytes - chip.memory_bytes) / 2**30:.1f} GiB more than it "
        f"has. {way}"
    )


def microbatch_counts(partition: TrainingPartition, batch: int) -> np.ndarray:
    """All numbers of microbatches that a batch divides into, in rising order.

    Example:
        >>> microbatch_counts(TrainingPartition(data=4), 24).tolist()
        [1, 2, 3, 6]
    """
    rows = batch // partition.sequence_parts
    small = np.arange(1, math.isqrt(rows) + 1)
    small = small[rows % small == 0]
    return np.unique(np.concatenate([small, rows // small]))


def _activations(
    shape: ModelShape, partition: TrainingPartition, sequence: int
) -> tuple[float, float]:
    """Elements of a token on a chip: a block's input, and all that its backward pass reads.

    That is what goes into each sublayer, before and after its norm, what lies inside, and the
    probabilities of attention.
    """
    between = shape.d_model / (partition.model2 if partition.activations == 2 else 1)
    parts = partition.model2
    layer = 0.0
    for sublayer in shape.sublayers("prefill"):
        keys = sublayer.key_value_width / math.gcd(shape.kv_heads, parts)
        layer += between + shape.d_model + keys
        layer += (sublayer.in_width + sublayer.out_width) / parts
        layer += sublayer.attends * sequence * shape.heads / parts
    return between, layer
