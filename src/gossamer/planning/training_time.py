r"""Seconds of one step of training that is partitioned over a slice.

.. math::
    T = (M + P - 1) \Big( \frac{N}{P} (T_f + T_b) + 2 T_{send} \Big)
        + T_{ends} + \max(0, T_{sum} - \frac{N}{P} T_{max}) + T_{update}

of M microbatches on P stages of N blocks. A block's forward and backward pass take

.. math::
    T_{f,b} = T_{max} + T_{attention} + T_{scores} + r T_{round} + t_0, \quad
    T_{max} = \max(T_{products}, T_{weights}, T_{gather})

and sums of gradients go on during the last backward pass.

What overlaps is an assumption. By default weights are gathered, and gradients summed, while
products go on; without overlap they take time of their own, which is nearer to what Jouppi et al.
measure of GPT-3, and Chowdhery et al. of PaLM 540B. While activations go over model2, or to the
next stage, nothing else goes on. Weights that are divided over model1 come anew for each
microbatch, forward and backward, as in a program that loops over its blocks. With rematerialization
a block is computed again before its backward pass, but for its last product, whose result no
gradient needs: 65 % of PaLM 540B's products with weights, where Chowdhery et al. 2022, arXiv
2204.02311, appendix B, count 75 %. Norms, embeddings' collectives and a network between slices are
left out.

Source: a reconstruction, see `gossamer.planning.training_partition`. Losses are those that
`gossamer.planning.calibration` fits to inference on TPU v4: nothing is fitted to training.
"""

import dataclasses
import math

import numpy as np

from gossamer.planning.batches import one_of
from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, StepConstants, seconds_per_byte
from gossamer.planning.layouts import Count
from gossamer.planning.meshes import Mesh
from gossamer.planning.partition_memory import ACTIVATION_BYTES
from gossamer.planning.shapes import ModelShape
from gossamer.planning.stored_weights import Weights
from gossamer.planning.training_blocks import BACKWARD, block_passes
from gossamer.planning.training_job import TrainingJob
from gossamer.planning.training_memory import (
    STATE_BYTES,
    WEIGHT_BYTES,
    check_training_fits,
    training_memory_use,
    weights_per_chip,
)
from gossamer.planning.training_partition import (
    FactorAxes,
    TrainingPartition,
    check_partition,
    factor_axes,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """What a step of training takes; arrays where microbatches are.

    Parts are of one chip, without the bubble. Some go on at once, so that they add up to more than
    `seconds`.

    Attributes:
        seconds: of the step.
        compute_seconds: of all products, those that are computed again included.
        memory_seconds: of reading weights, of scores that do not stay on the chip, and of the
            optimizer's update.
        activation_seconds: of collectives of activations over model2.
        gather_seconds: of gathering weights and scattering their gradients over model1.
        gradient_seconds: of summing gradients over copies.
        transfer_seconds: of what goes to and comes from other stages.
        fixed_seconds: that do not depend on sizes: of blocks and of hops.
        bubble: share of the pipeline's time in which a stage waits.
        sequences_per_second: of all chips.
        mfu: model-FLOPs utilization: 6 FLOPs for each parameter and token, and nothing for
            attention or for what is computed again, at the peak of bf16.
        memory_bytes_per_chip: see `training_memory_use`.
    """

    seconds: Count
    compute_seconds: Count
    memory_seconds: Count
    activation_seconds: Count
    gather_seconds: Count
    gradient_seconds: Count
    transfer_seconds: Count
    fixed_seconds: Count
    bubble: Count
    sequences_per_second: Count
    mfu: Count
    memory_bytes_per_chip: Count


def training_step(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    partition: TrainingPartition,
    *,
    batch: int,
    sequence: int,
    microbatches: int = 1,
    rematerialize: bool = True,
    overlap: bool = True,
    weights: Weights = "bf16",
    constants: StepConstants = CALIBRATED,
) -> TrainingStep:
    """The cost of one step; `search_training` chooses what is left open here.

    Args:
        shape: of the model: a decoder of text.
        chip: of which the slice is made, on a torus.
        mesh: the slice.
        partition: of its chips; it is laid on the axes where it is fastest.
        batch: sequences of a step.
        sequence: tokens of each.
        microbatches: that each copy's sequences go through in turn.
        rematerialize: whether blocks are computed again for their backward pass.
        overlap: whether weights are gathered, and gradients summed, while products go on.
        weights: what the forward pass multiplies by; products of integers take less time.
        constants: losses.

    Raises:
        ValueError: a size is not positive or does not divide, the partition does not lie on the
            slice, or it does not fit; it says what would.

    Example:
        >>> from gossamer.planning import find_chip, find_shape, parse_partition
        >>> step = training_step(find_shape("gpt-3-175b"), find_chip("tpu-v4"), Mesh.of(4, 8, 16),
        ...                      parse_partition("[16,4,1,8] 1D/1D"), batch=1536, sequence=2048,
        ...                      microbatches=384)
        >>> print(f"{step.sequences_per_second:.1f} sequences/s, MFU {step.mfu:.0%}")
        24.3 sequences/s, MFU 37%

    Source: 25.0 sequences/s in Jouppi et al. 2023, table 3, which does not tell the batch.
    """
    job = TrainingJob(
        shape=shape,
        chip=chip,
        batch=batch,
        sequence=sequence,
        overlap=overlap,
        weights=weights,
        constants=constants,
    )
    chip.check_linked(mesh.chips)
    if microbatches < 1:
        raise ValueError(f"microbatches of a step needs 1 or more, got {microbatches}.")
    placed = factor_axes(partition, mesh)
    check_partition(partition, shape, batch, microbatches)
    check_training_fits(
        shape,
        chip,
        partition,
        batch=batch,
        sequence=sequence,
        microbatches=microbatches,
        rematerialize=rematerialize,
    )
    counts = np.array([microbatches])
    steps = (training_steps(job, mesh, axes, partition, counts, rematerialize) for axes in placed)
    return min((one_of(each, 0) for each in steps), key=lambda step: step.seconds)


def training_steps(
    job: TrainingJob,
    mesh: Mesh,
    axes: FactorAxes,
    partition: TrainingPartition,
    microbatches: np.ndarray,
    rematerialize: bool,
) -> TrainingStep:
    """Steps with many numbers of microbatches at once; nothing is checked.

    Args:
        job: that is partitioned.
        mesh: the slice.
        axes: on which the partition lies.
        partition: of the slice's chips.
        microbatches: numbers of them.
        rematerialize: whether blocks are computed again for their backward pass.
    """
    shape, chip, constants = job.shape, job.chip, job.constants
    tokens = job.tokens(partition, microbatches)
    forward, backward = block_passes(job, mesh, axes, partition, tokens, rematerialize)
    stages, layers = partition.pipeline, shape.layers / partition.pipeline
    sending = _sending_seconds(shape, chip, partition, tokens, constants)
    once = layers * (forward.seconds + backward.seconds) + 2 * sending
    ends = _end_seconds(shape, chip, mesh, job.batch * job.sequence, constants)
    held = weights_per_chip(shape, partition)
    copies = axes.data + (axes.model1 if partition.weights == 1 else ())
    summing = (
        2 * WEIGHT_BYTES * held * seconds_per_byte("all-reduce", copies, chip, mesh, constants)
    )
    updating = 2 * STATE_BYTES * held / chip.memory_bandwidth  # all is read and written once
    # Of the last microbatch's backward pass.
    hiding = layers * backward.together if job.overlap else 0.0
    rounds = microbatches + stages - 1
    seconds = rounds * once + ends + np.maximum(0.0, summing - hiding) + updating

    def both(part: str) -> Count:
        return microbatches * layers * (getattr(forward, part) + getattr(backward, part))

    rate = job.batch / seconds
    flops = 6 * shape.counted_parameters * job.sequence
    return TrainingStep(
        seconds=seconds,
        compute_seconds=both("products") + both("attending") + ends,
        memory_seconds=both("reading") + both("looking") + updating,
        activation_seconds=both("moving"),
        gather_seconds=both("gathering"),
        gradient_seconds=summing,
        transfer_seconds=2 * microbatches * sending,
        fixed_seconds=both("fixed"),
        bubble=(stages - 1) / rounds,
        sequences_per_second=rate,
        mfu=flops * rate / (mesh.chips * chip.bf16_flops),
        memory_bytes_per_chip=training_memory_use(
            shape,
            partition,
            batch=job.batch,
            sequence=job.sequence,
            microbatches=microbatches,
            rematerialize=rematerialize,
        ).nbytes,
    )


def _sending_seconds(
    shape: ModelShape,
    chip: Chip,
    partition: TrainingPartition,
    tokens: Count,
    constants: StepConstants,
) -> Count:
    """Seconds until a microbatch's activations are at the next stage, over one link."""
    if partition.pipeline == 1:
        return 0.0
    assert chip.link_bandwidth is not None
    parts = partition.model2 if partition.activations == 2 else 1
    nbytes = ACTIVATION_BYTES * tokens * shape.d_model / parts
    return nbytes / (chip.link_bandwidth * constants.link_efficiency) + constants.hop_seconds


def _end_seconds(
    shape: ModelShape, chip: Chip, mesh: Mesh, tokens: int, constants: StepConstants
) -> float:
    """Seconds of scores of the vocabulary, forward and backward, which all stages share."""
    size = math.prod(shape.end_kernels[shape.output_path])
    peak = mesh.chips * chip.bf16_flops * constants.matmul_efficiency
    return (1 + BACKWARD) * 2 * size * tokens / peak
