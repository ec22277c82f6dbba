"""What steps of attention that overlap use of a chip: seconds of each resource, and bytes.

Softmax, which FLAT takes for free, is charged as FuseMax does (Nayak et al., MICRO 2024, arXiv
2406.10491, and its artifact): four operations a score, and two transfers of the scores where they
are in memory.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from gossamer.planning.attention_demands import Demand, Numbers
from gossamer.planning.attention_shapes import AttentionShape
from gossamer.planning.chips import Chip

SOFTMAX_OPERATIONS = 4
"""Of one lane, a score: maximum, exponential of the difference, sum, division."""
SOFTMAX_ACCESSES = 5
"""Of the buffer, a score: read for the maximum, read and written twice after it."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What a phase uses, as `gossamer.planning.attention_costs.Phase`; arrays for many of them."""

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
        memory += np.where(resident, SOFTMAX_ACCESSES * spilled * scores, 2 * scores)[()]
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
