r"""Seconds and bytes of one layer's attention under a given mapping, fused as FLAT does and not.

Fused, one loop over tiles of heads and rows makes a tile of scores, its softmax and its product
with values, one after the other on the same matrix unit. Transfers and arithmetic overlap, so the
slowest resource sets the time. Not fused, each step runs to its end before the next begins.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419. Softmax, which FLAT takes for free, is
charged as FuseMax does (Nayak et al., MICRO 2024, arXiv 2406.10491, and its artifact): four
operations a score, and two transfers of the scores where they are in memory.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from gossamer.planning.attention_footprints import check_rows
from gossamer.planning.attention_mappings import (
    AttentionMapping,
    Demand,
    attend_demand,
    logit_demand,
)
from gossamer.planning.attention_shapes import AttentionShape
from gossamer.planning.chips import Chip

Numbers: TypeAlias = float | np.ndarray
Resource: TypeAlias = Literal["array", "softmax", "buffer", "memory"]

SOFTMAX_OPERATIONS = 4
"""Of one lane, a score: maximum, exponential of the difference, sum, division."""
SOFTMAX_ACCESSES = 5
"""Of the buffer, a score: read for the maximum, read and written twice after it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What is used at the same time, and for how many seconds; arrays for many candidates.

    Attributes:
        array: seconds of the matrix unit.
        softmax: of the one-dimensional lanes; 0 where softmax is taken for free.
        buffer: of the bandwidth on the chip; 0 where the chip's is not known.
        memory: of the bandwidth off the chip.
        memory_bytes: of traffic, with softmax's if it is charged.
        buffer_bytes: between the buffer and what computes, with softmax's if it is charged.
        footprint_bytes: of the buffer.
        spilled_share: of the footprint that the buffer cannot hold.
    """

    array: Numbers
    softmax: Numbers
    buffer: Numbers
    memory: Numbers
    memory_bytes: Numbers
    buffer_bytes: Numbers
    footprint_bytes: Numbers
    spilled_share: Numbers

    @property
    def seconds(self) -> Numbers:
        """Until the slowest resource is done."""
        return functools.reduce(np.maximum, (self.array, self.softmax, self.buffer, self.memory))


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a mapping's time in which everything overlaps.

    Attributes:
        name: `fused`, or `logit`, `softmax` and `attend`.
        usage: of resources.
    """

    name: str
    usage: Usage

    @property
    def seconds(self) -> float:
        """Until the slowest resource is done."""
        return float(self.usage.seconds)

    @property
    def limit(self) -> Resource:
        """The slowest resource."""
        names: tuple[Resource, ...] = ("array", "softmax", "buffer", "memory")
        return max(names, key=lambda name: float(getattr(self.usage, name)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionCost:
    """What one layer's attention costs under one mapping.

    Attributes:
        shape: sizes.
        mapping: how it is computed.
        phases: that follow one another; one if one loop does all.
        ideal_seconds: of both products if nothing but the full array limited them.
    """

    shape: AttentionShape
    mapping: AttentionMapping
    phases: tuple[Phase, ...]
    ideal_seconds: float

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def utilization(self) -> float:
        """Of the matrix unit: ideal seconds over these."""
        return self.ideal_seconds / self.seconds

    @property
    def limit(self) -> Resource:
        """The resource that limits the longest phase."""
        return max(self.phases, key=lambda phase: phase.seconds).limit

    @property
    def memory_bytes(self) -> float:
        """Of traffic, with softmax's if it is charged."""
        return sum(float(phase.usage.memory_bytes) for phase in self.phases)

    @property
    def buffer_bytes(self) -> float:
        """Between the buffer and what computes, with softmax's if it is charged."""
        return sum(float(phase.usage.buffer_bytes) for phase in self.phases)

    @property
    def footprint_bytes(self) -> float:
        """Of the buffer, in the phase that needs most."""
        return max(float(phase.usage.footprint_bytes) for phase in self.phases)

    @property
    def spilled_share(self) -> float:
        """Of the footprint that the buffer cannot hold, in the phase that needs most."""
        return max(float(phase.usage.spilled_share) for phase in self.phases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What the model needs of a chip.

    Attributes:
        array_size: t, rows and columns of the matrix unit.
        buffer_bytes: of the memory on the chip.
        macs: multiply-adds a second.
        buffer_bandwidth: bytes a second; infinite where it is not known.
        memory_bandwidth: bytes a second.
        softmax_operations: a second, of all lanes; None where softmax is taken for free.
    """

    array_size: int
    buffer_bytes: float
    macs: float
    buffer_bandwidth: float
    memory_bandwidth: float
    softmax_operations: float | None


def machine(chip: Chip, *, charge_softmax: bool) -> Machine:
    """Takes from a chip what the model needs. Several matrix units are one as fast as all.

    Raises:
        ValueError: constants are missing; they are named.

    Example:
        >>> from gossamer.planning import find_chip
        >>> machine(find_chip("flat-edge"), charge_softmax=False).array_size
        32
    """
    needed = ["array_size", "on_chip_bytes"] + ["clock_hz", "vector_lanes"] * charge_softmax
    if missing := [name for name in needed if getattr(chip, name) is None]:
        free = (
            "; with softmax free, neither lanes nor clock are needed"
            if {"clock_hz", "vector_lanes"} & set(missing)
            else ""
        )
        raise ValueError(
            f"What attention costs on {chip.name} needs constants of it that are not known: "
            f"{', '.join(missing)}. Give them in a YAML file of chips{free}."
        )
    assert chip.array_size is not None
    assert chip.on_chip_bytes is not None
    return Machine(
        array_size=chip.array_size,
        buffer_bytes=chip.on_chip_bytes,
        macs=chip.bf16_flops / 2,
        buffer_bandwidth=chip.on_chip_bandwidth or float("inf"),
        memory_bandwidth=chip.memory_bandwidth,
        softmax_operations=(chip.vector_lanes or 0) * (chip.clock_hz or 0)
        if charge_softmax
        else None,
    )


def fused_cost(
    chip: Chip, shape: AttentionShape, mapping: AttentionMapping, *, charge_softmax: bool = True
) -> AttentionCost:
    r"""What attention costs as one loop over tiles.

    .. math:: t = \max \Big( t_{array}, t_{softmax}, t_{buffer}, \frac{b}{BW} \Big), \quad
        b = b_{L} + b_{A} + b_{softmax} + p \cdot b_{spilled}, \quad
        p = \max \big( 0, 1 - C / F \big)

    with the footprint F, the buffer's capacity C and the bandwidth BW of the memory. With the
    mapping's scores off the chip the loop is the same, but they go to memory and come back.

    Args:
        chip: with `array_size` and `on_chip_bytes`, and for softmax `clock_hz` and `vector_lanes`.
        shape: sizes.
        mapping: how it is computed.
        charge_softmax: whether softmax takes time and traffic; FLAT's own figures have it free.

    Raises:
        ValueError: the chip lacks constants, or the mapping does not fit the shape.
    """
    unit = machine(chip, charge_softmax=charge_softmax)
    mapping.check(shape)
    return price_fused(unit, shape, mapping, *_demands(unit, shape, mapping))


def unfused_cost(
    chip: Chip, shape: AttentionShape, mapping: AttentionMapping, *, charge_softmax: bool = True
) -> AttentionCost:
    """What attention costs as L, softmax and A, each run to its end for all heads.

    Each step has the whole buffer. The scores of all heads and sequences stay there if the mapping
    says so, at granularity M, which is the only one: without a common loop all are made before they
    are used.

    Args:
        chip: as `fused_cost` takes it.
        shape: sizes.
        mapping: how it is computed; rows are of each product's own loop, and may differ.
        charge_softmax: whether softmax takes time and traffic.

    Raises:
        ValueError: the chip lacks constants, or the mapping does not fit the shape.
    """
    unit = machine(chip, charge_softmax=charge_softmax)
    if mapping.granularity != "M":
        raise ValueError(
            "Without a common loop all scores are made before they are used: that is granularity "
            f"M, got {mapping.granularity}."
        )
    for laid in (mapping.logit, mapping.attend):
        check_rows(shape, "R", laid.rows)
    logit, attend = _demands(unit, shape, mapping)
    return price_steps(unit, shape, mapping, logit, attend)


def price_fused(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping, logit: Demand, attend: Demand
) -> AttentionCost:
    """`fused_cost` where demands are known already, as a search knows them."""
    resident = mapping.resident_score_bytes(shape)
    usage = use(unit, shape, [logit, attend], resident, softmax=True)
    return _cost(unit, shape, mapping, [Phase("fused", usage)])


def price_steps(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping, logit: Demand, attend: Demand
) -> AttentionCost:
    """`unfused_cost` where demands are known already, as a search knows them."""
    resident = mapping.resident_score_bytes(shape)
    phases = [Phase("logit", use(unit, shape, [logit], resident))]
    if unit.softmax_operations is not None:
        phases.append(Phase("softmax", use(unit, shape, [], resident, softmax=True)))
    phases.append(Phase("attend", use(unit, shape, [attend], resident)))
    return _cost(unit, shape, mapping, phases)


def use(
    unit: Machine,
    shape: AttentionShape,
    products: Sequence[Demand],
    resident: Numbers,
    *,
    softmax: bool = False,
) -> Usage:
    """What is used by steps that overlap; of many candidates where they are arrays.

    Args:
        unit: what computes.
        shape: sizes.
        products: their demands.
        resident: bytes of scores that stay on the chip; 0 where they are in memory.
        softmax: whether the softmax is among the steps; it uses nothing on a machine where it is
            free.
    """
    footprint = resident + sum(product.footprint_bytes for product in products)
    spilled = np.maximum(0.0, 1 - unit.buffer_bytes / np.maximum(footprint, 1))
    memory = sum(each.memory_bytes + spilled * each.spilled_bytes for each in products)
    moved = sum(product.array_bytes for product in products)
    lanes = 0.0
    if softmax and unit.softmax_operations is not None:
        scores = shape.scores * shape.element_bytes
        lanes = SOFTMAX_OPERATIONS * shape.scores / unit.softmax_operations
        moved += SOFTMAX_ACCESSES * scores
        memory += np.where(resident, SOFTMAX_ACCESSES * spilled * scores, 2 * scores)
    return Usage(
        array=sum(product.array_stretch for product in products) * (shape.macs / unit.macs),
        softmax=lanes,
        buffer=moved / unit.buffer_bandwidth,
        memory=memory / unit.memory_bandwidth,
        memory_bytes=memory,
        buffer_bytes=moved,
        footprint_bytes=footprint,
        spilled_share=spilled,
    )


def _demands(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping
) -> tuple[Demand, Demand]:
    on_chip = mapping.scores_on_chip
    return (
        logit_demand(shape, unit.array_size, mapping.logit, scores_on_chip=on_chip),
        attend_demand(shape, unit.array_size, mapping.attend, scores_on_chip=on_chip),
    )


def _cost(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping, phases: Sequence[Phase]
) -> AttentionCost:
    return AttentionCost(
        shape=shape,
        mapping=mapping,
        phases=tuple(phases),
        ideal_seconds=2 * shape.macs / unit.macs,
    )
