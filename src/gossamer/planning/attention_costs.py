r"""Seconds and bytes of one layer's attention under a given mapping, fused as FLAT does and not.

Fused, one loop over tiles of heads and rows makes a tile of scores, its softmax and its product
with values, one after the other on the same matrix unit. Transfers and arithmetic overlap, so the
slowest resource sets the time. Not fused, each step runs to its end before the next begins.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

from gossamer.planning.attention_demands import Demand, attend_demand, logit_demand
from gossamer.planning.attention_footprints import check_rows
from gossamer.planning.attention_mappings import AttentionMapping
from gossamer.planning.attention_shapes import AttentionShape
from gossamer.planning.attention_usage import Machine, Usage, machine, use
from gossamer.planning.chips import Chip

Resource: TypeAlias = Literal["array", "softmax", "buffer", "memory"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a mapping's time in which everything overlaps.

    Attributes:
        name: `fused`, or `logit`, `softmax` and `attend`.
        array: seconds of the matrix unit.
        softmax: of the one-dimensional lanes; 0 where softmax is taken for free.
        buffer: of the bandwidth on the chip; 0 where the chip's is not known.
        memory: of the bandwidth off the chip.
        memory_bytes: of traffic, with softmax's if it is charged.
        buffer_bytes: between the buffer and what computes, with softmax's if it is charged.
        footprint_bytes: of the buffer.
        spilled_share: of the footprint that the buffer cannot hold.
    """

    name: str
    array: float
    softmax: float
    buffer: float
    memory: float
    memory_bytes: float
    buffer_bytes: float
    footprint_bytes: float
    spilled_share: float

    @property
    def seconds(self) -> float:
        """Until the slowest resource is done."""
        return max(self.array, self.softmax, self.buffer, self.memory)

    @property
    def limit(self) -> Resource:
        """The slowest resource."""
        names: tuple[Resource, ...] = ("array", "softmax", "buffer", "memory")
        return max(names, key=lambda name: getattr(self, name))


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
    def array_seconds(self) -> float:
        """Of the matrix unit, in all phases."""
        return sum(phase.array for phase in self.phases)

    @property
    def memory_bytes(self) -> float:
        """Of traffic, with softmax's if it is charged."""
        return sum(phase.memory_bytes for phase in self.phases)

    @property
    def buffer_bytes(self) -> float:
        """Between the buffer and what computes, with softmax's if it is charged."""
        return sum(phase.buffer_bytes for phase in self.phases)

    @property
    def footprint_bytes(self) -> float:
        """Of the buffer, in the phase that needs most."""
        return max(phase.footprint_bytes for phase in self.phases)

    @property
    def spilled_share(self) -> float:
        """Of the footprint that the buffer cannot hold, in the phase that needs most."""
        return max(phase.spilled_share for phase in self.phases)


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
    resident = mapping.resident_score_bytes(shape)
    usage = use(unit, shape, _demands(unit, shape, mapping), resident, softmax=True)
    return _cost(unit, shape, mapping, [_phase("fused", usage)])


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
    resident = mapping.resident_score_bytes(shape)
    phases = [_phase("logit", use(unit, shape, [logit], resident))]
    if charge_softmax:
        phases.append(_phase("softmax", use(unit, shape, [], resident, softmax=True)))
    phases.append(_phase("attend", use(unit, shape, [attend], resident)))
    return _cost(unit, shape, mapping, phases)


def _demands(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping
) -> tuple[Demand, Demand]:
    logit, attend = (
        demand(
            shape,
            unit.array_size,
            laid.rows,
            laid.stationarity,
            laid.on_chip,
            scores_on_chip=mapping.scores_on_chip,
        )
        for demand, laid in ((logit_demand, mapping.logit), (attend_demand, mapping.attend))
    )
    return logit, attend


def _phase(name: str, usage: Usage) -> Phase:
    used = {field.name: float(getattr(usage, field.name)) for field in dataclasses.fields(Usage)}
    return Phase(name=name, **used)


def _cost(
    unit: Machine, shape: AttentionShape, mapping: AttentionMapping, phases: Sequence[Phase]
) -> AttentionCost:
    return AttentionCost(
        shape=shape,
        mapping=mapping,
        phases=tuple(phases),
        ideal_seconds=2 * shape.macs / unit.macs,
    )
