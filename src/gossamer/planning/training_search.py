"""The best of many ways to train a model: slices, partitions and microbatches together.

Slices are not twisted: a twist is for all-to-all, of which a step has none, and joins the rings of
its short axes.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn, get_args

import numpy as np

from gossamer.planning.batches import one_of
from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, StepConstants
from gossamer.planning.meshes import Mesh
from gossamer.planning.shapes import ModelShape
from gossamer.planning.slices import slices_of
from gossamer.planning.stored_weights import Weights
from gossamer.planning.training_job import TrainingJob
from gossamer.planning.training_memory import check_training_fits, microbatch_counts
from gossamer.planning.training_partition import (
    FACTORS,
    Dimensions,
    TrainingPartition,
    all_factor_axes,
    check_partition,
    factor_axes,
)
from gossamer.planning.training_time import TrainingStep, training_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """One way to train, and what a step takes.

    Attributes:
        mesh: the slice.
        partition: of its chips.
        microbatches: that each copy's sequences go through in turn.
        rematerialize: whether blocks are computed again for their backward pass.
        step: its cost.
    """

    mesh: Mesh
    partition: TrainingPartition
    microbatches: int
    rematerialize: bool
    step: TrainingStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSearch:
    """What a search found.

    Attributes:
        plans: the fastest of each slice and partition, the best first.
        considered: how many were looked at, microbatches and rematerialization included.
        left_out: how many slices with a partition were not possible, by reason.
    """

    plans: tuple[TrainingPlan, ...]
    considered: int
    left_out: Mapping[str, int]


def search_training(
    shape: ModelShape,
    chip: Chip,
    *,
    meshes: Sequence[Mesh],
    batch: int,
    sequence: int,
    overlap: bool = True,
    weights: Weights = "bf16",
    constants: StepConstants = CALIBRATED,
) -> TrainingSearch:
    """Finds the fastest step of each slice and partition, the best first.

    1D weights with parts of model1 are left out: they are copies, and so the same as data.

    Args:
        shape: of the model: a decoder of text.
        chip: of which the slices are made, on a torus.
        meshes: the slices, such as `training_meshes` lists.
        batch: sequences of a step.
        sequence: tokens of each.
        overlap: whether weights are gathered, and gradients summed, while products go on.
        weights: what the forward pass multiplies by; products of integers take less time.
        constants: losses.

    Raises:
        ValueError: there are no slices, nothing divides, or nothing fits: it says how near the best
            was.

    Example:
        >>> from gossamer.planning import find_chip, find_shape
        >>> chip = find_chip("tpu-v4")
        >>> found = search_training(find_shape("gpt-3-175b"), chip, batch=1536, sequence=2048,
        ...                         meshes=training_meshes(chip, 512))
        >>> for plan in found.plans[:3]:
        ...     print(plan.mesh, plan.partition, f"{plan.step.mfu:.0%}")
        4x8x16 [1,1,128,4] 1D/2D 45%
        4x4x32 [1,1,128,4] 1D/2D 45%
        8x8x8 [1,1,512,1] 1D/2D 45%
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
    if not meshes:
        raise ValueError("A search needs slices to choose from, and there are none.")
    chip.check_linked(max(mesh.chips for mesh in meshes))
    found: list[TrainingPlan] = []
    nearest: list[TrainingPlan] = []
    left_out: Counter[str] = Counter()
    considered = 0
    for mesh in dict.fromkeys(meshes):
        for partition in partitions_of(mesh):
            try:
                check_partition(partition, shape, batch)
            except ValueError:
                left_out["does not divide"] += 1
                considered += 1
                continue
            candidates = _candidates(job, mesh, partition)
            considered += sum(each.counts.size for each in candidates)
            best = _fastest(mesh, partition, candidates, chip.memory_bytes)
            if best is None:
                left_out["does not fit"] += 1
                nearest.append(_smallest(mesh, partition, candidates))
            else:
                found.append(best)
    if not found:
        _raise_nothing(shape, chip, nearest)
    # Slices that are as fast by this arithmetic: the one nearest to a cube first.
    found.sort(key=lambda plan: (plan.step.seconds, sum(axis.size for axis in plan.mesh.axes)))
    return TrainingSearch(plans=tuple(found), considered=considered, left_out=dict(left_out))


def plan_partition(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    partition: TrainingPartition,
    *,
    batch: int,
    sequence: int,
    overlap: bool = True,
    weights: Weights = "bf16",
    constants: StepConstants = CALIBRATED,
) -> TrainingPlan:
    """The fastest step of one slice and partition: microbatches and rematerialization are chosen.

    Arguments are those of `search_training`.

    Raises:
        ValueError: a size is not positive or does not divide, the partition does not lie on the
            slice, or it does not fit; it says what would.
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
    factor_axes(partition, mesh)
    check_partition(partition, shape, batch)
    candidates = _candidates(job, mesh, partition)
    best = _fastest(mesh, partition, candidates, chip.memory_bytes)
    if best is None:
        least = _smallest(mesh, partition, candidates)
        check_training_fits(
            shape,
            chip,
            partition,
            batch=batch,
            sequence=sequence,
            microbatches=least.microbatches,
            rematerialize=least.rematerialize,
        )
    assert best is not None
    return best


def training_meshes(chip: Chip, chips: int) -> tuple[Mesh, ...]:
    """The slices of so many chips: those of TPU v4 in three dimensions, rectangles in two.

    Args:
        chip: whose network it is.
        chips: how many.

    Raises:
        ValueError: there are none.

    Example:
        >>> from gossamer.planning import find_chip
        >>> print(*training_meshes(find_chip("tpu-v4"), 512))
        4x4x32 4x8x16 8x8x8
    """
    if chip.torus_axes == 3:
        return tuple(Mesh.of(*each.sizes) for each in slices_of(chips) if not each.twisted)
    if chips < 1:
        raise ValueError(f"A slice needs 1 chip or more, got {chips}.")
    sides = (side for side in range(1, math.isqrt(chips) + 1) if chips % side == 0)
    return tuple(Mesh.of(side, chips // side, 1) for side in sides)


def partitions_of(mesh: Mesh) -> tuple[TrainingPartition, ...]:
    """All partitions that lie on a slice and differ in what they do.

    Example:
        >>> for partition in partitions_of(Mesh.of(4, 1, 1)):
        ...     print(partition)
        [4,1,1,1] 1D/1D
        [1,4,1,1] 1D/1D
        [1,1,4,1] 1D/2D
        [1,1,1,4] 1D/1D
        [1,1,1,4] 2D/1D
    """
    found = (
        TrainingPartition(
            **dict(zip(FACTORS, axes.factors, strict=True)),
            activations=activations,
            weights=1 if axes.factors[2] == 1 else 2,
        )
        for axes in all_factor_axes(mesh)
        for activations in (get_args(Dimensions) if axes.factors[3] > 1 else (1,))
    )
    return tuple(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """Steps that differ in their microbatches alone."""

    counts: np.ndarray
    rematerialize: bool
    steps: TrainingStep

    def field(self, name: str) -> np.ndarray:
        return np.broadcast_to(getattr(self.steps, name), self.counts.shape)

    def plan(self, mesh: Mesh, partition: TrainingPartition, index: int) -> TrainingPlan:
        return TrainingPlan(
            mesh=mesh,
            partition=partition,
            microbatches=int(self.counts[index]),
            rematerialize=self.rematerialize,
            step=one_of(self.steps, index),
        )


def _candidates(job: TrainingJob, mesh: Mesh, partition: TrainingPartition) -> list[_Candidates]:
    counts = microbatch_counts(partition, job.batch)
    return [
        _Candidates(
            counts,
            rematerialize,
            training_steps(job, mesh, axes, partition, counts, rematerialize),
        )
        for axes in factor_axes(partition, mesh)
        for rematerialize in (False, True)
    ]


def _fastest(
    mesh: Mesh, partition: TrainingPartition, candidates: list[_Candidates], memory_bytes: float
) -> TrainingPlan | None:
    """The fastest that fits, if any does."""
    ways = []
    for each in candidates:
        fits = each.field("memory_bytes_per_chip") <= memory_bytes
        if fits.any():
            seconds = np.where(fits, each.field("seconds"), np.inf)
            ways.append((seconds.min(), each, int(seconds.argmin())))
    if not ways:
        return None
    _, chosen, index = min(ways, key=lambda way: way[0])
    return chosen.plan(mesh, partition, index)


def _smallest(
    mesh: Mesh, partition: TrainingPartition, candidates: list[_Candidates]
) -> TrainingPlan:
    """What takes the least memory."""
    chosen = min(candidates, key=lambda each: each.field("memory_bytes_per_chip").min())
    return chosen.plan(mesh, partition, int(chosen.field("memory_bytes_per_chip").argmin()))


def _raise_nothing(shape: ModelShape, chip: Chip, nearest: list[TrainingPlan]) -> NoReturn:
    if not nearest:
        raise ValueError(
            f"No partition divides {shape.name} over any of the slices; take other numbers of "
            "chips or a batch that more chips divide."
        )
    least = min(nearest, key=lambda plan: plan.step.memory_bytes_per_chip)
    needed = float(least.step.memory_bytes_per_chip)
    raise ValueError(
        f"{shape.name} fits in no way: the least that it needs of each {chip.name} is "
        f"{needed / 2**30:.1f} GiB, {(needed - chip.memory_bytes) / 2**30:.1f} GiB more than it "
        f"has, as {least.partition} on {least.mesh}; give more chips."
    )
