"""Joules of attention: of memory traffic alone, as FLAT has it, and of all that moves and computes.

Source: FLAT's own constants were not found; those here are of its code's outputs, of its authors'
cost model FRAME, and of FuseMax (Nayak et al., MICRO 2024, arXiv 2406.10491).
"""

import dataclasses

from gossamer.planning.attention_costs import AttentionCost
from gossamer.planning.attention_usage import SOFTMAX_OPERATIONS


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyCosts:
    """Picojoules of each action; 0 where it is left out.

    Attributes:
        memory_byte: of traffic off the chip.
        buffer_byte: between the buffer on the chip and what computes.
        mac: a multiply-add of the matrix unit.
        register: an access of a register beside a multiplier.
        softmax_operation: of a one-dimensional lane.
        source: where they are found.
    """

    memory_byte: float
    buffer_byte: float = 0.0
    mac: float = 0.0
    register: float = 0.0
    softmax_operation: float = 0.0
    source: str

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "source" and not value >= 0:
                raise ValueError(f"{field.name} needs picojoules from 0 on, got {value}.")


FLAT_ENERGY = EnergyCosts(
    memory_byte=32.0,
    source="what the outputs of FLAT's code have, exactly: 64 units a word of 2 bytes; that units "
    "are picojoules is presumed",
)

FRAME_ENERGY = EnergyCosts(
    memory_byte=37.5,
    # 8.5 an access of the buffer, taken for one of a word of 2 bytes, and 2 a byte to compute.
    buffer_byte=8.5 / 2 + 2,
    mac=0.52,
    source="defaults of FRAME, by FLAT's authors",
)

FUSEMAX_ENERGY = EnergyCosts(
    memory_byte=249.6 / 8,
    # A row of 4096 bits; the mean of 485 to read and 451 to write it.
    buffer_byte=(485 + 451) / 2 / 512,
    mac=17.2,
    register=(3 * 0.29 + 0.23) / 4,
    # No figure of the lanes was found: as a multiply-add.
    softmax_operation=17.2,
    source="tables of FuseMax's artifact, 45 nm",
)

_REGISTER_ACCESSES = 4  # a multiply-add: two operands and the partial sum read, the sum written


def attention_joules(cost: AttentionCost, costs: EnergyCosts = FLAT_ENERGY) -> float:
    """Joules of one layer's attention.

    Args:
        cost: what it does.
        costs: of each action.

    Example:
        >>> from gossamer.planning import find_chip
        >>> from gossamer.planning.attention_dataflow import best_fused
        >>> from gossamer.planning.attention_shapes import FLAT_MODELS
        >>> shape = FLAT_MODELS["bert-base"].shape(512)
        >>> cost = best_fused(find_chip("flat-cloud"), shape, charge_softmax=False)
        >>> attention_joules(cost) == 32e-12 * cost.memory_bytes
        True
    """
    macs = 2 * cost.shape.macs
    lanes = SOFTMAX_OPERATIONS * cost.shape.scores
    picojoules = (
        costs.memory_byte * cost.memory_bytes
        + costs.buffer_byte * cost.buffer_bytes
        + costs.mac * macs
        + costs.register * _REGISTER_ACCESSES * macs
        + costs.softmax_operation * lanes
    )
    return 1e-12 * picojoules
