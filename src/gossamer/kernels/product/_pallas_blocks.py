"""How large the blocks of the Pallas kernel are, and where groups of scales begin and end in them.

The sizes are those for which the kernel fits in a TPU's memory and compiles in seconds. None has
been timed on a chip.
"""

import dataclasses
import math

from gossamer.kernels.product._pallas_codes import COLUMN_WORDS, PLACES, place_bits
from gossamer.sparsity import NM

LARGEST_ROWS = {"float32": 128, "bfloat16": 512, "int8": 512}
"""Rows of `x` in a block, by its dtype. The weights are decoded again for each block of rows;
products of float32 take six times those of bfloat16, and so much longer programs."""

LARGEST_SHARES = {"float32": 2048, "bfloat16": 4096, "int8": 4096}
"""Rows of `x` times groups in a block, by its dtype: for each group a part of a row is moved to the
start of a register. Tried: twice as many of bfloat16; groups of 48 overflow a v5e's 16 MB."""

LARGEST_INPUTS = 1024
"""Inputs in a block. Products of so many symmetric codes of 8 bits sum to less than 2^24, which
float32 holds exactly."""

SMALLEST_GROUP = 16
"""Elements that share a scale. The product of each group is written out, so small groups make long
programs."""

_TILE_ROWS = 32  # of bytes; of wider numbers it is less


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """The steps of a sum over `in`.

    Attributes:
        inputs: inputs of a block.
        steps: blocks along `in`; the last may reach beyond the end.
        groups: groups of scales that a block has, or has a part of.
        steps_per_group: steps that a group takes; 1 if blocks have whole groups.
    """

    inputs: int
    steps: int
    groups: int
    steps_per_group: int

    @property
    def group_inputs(self) -> int:
        """Inputs of each group that are in one block."""
        return self.inputs // self.groups

    @property
    def one_scale(self) -> bool:
        """Whether all of `in` has one scale."""
        return self.groups == 1 and self.steps == self.steps_per_group


def column_inputs(bits: int, pattern: NM | None) -> tuple[int, int]:
    """Inputs of a column of values, and of one of indices; for a dense kernel twice the same.

    Example:
        >>> column_inputs(4, NM(2, 4)), column_inputs(8, NM(4, 8))
        ((32, 64), (16, 64))
    """
    column_bits = 32 * COLUMN_WORDS
    if pattern is None:
        return column_bits // bits, column_bits // bits
    spread = pattern.m // pattern.n
    width = place_bits(pattern)
    indices = column_bits if width is None else column_bits // width * spread
    return column_bits // bits * spread, indices


def choose(size: int, groups: int, bits: int, pattern: NM | None) -> Blocks | None:
    """Equal blocks of whole columns that have whole groups, or are equal parts of groups.

    None where there are none of `LARGEST_INPUTS` or fewer.
    """
    unit = math.lcm(PLACES, *column_inputs(bits, pattern))
    if groups == 1:
        inputs = _block(size, unit)
        steps = -(-size // inputs)
        return Blocks(inputs=inputs, steps=steps, groups=1, steps_per_group=steps)
    group = size // groups
    whole = math.lcm(unit, group)
    if whole <= LARGEST_INPUTS:
        inputs = _block(size, whole)
        steps = -(-size // inputs)
        return Blocks(inputs=inputs, steps=steps, groups=inputs // group, steps_per_group=1)
    for inputs in range(LARGEST_INPUTS // unit * unit, 0, -unit):
        if group % inputs == 0:
            parts = group // inputs
            return Blocks(inputs=inputs, steps=groups * parts, groups=1, steps_per_group=parts)
    return None


def block_rows(rows: int, dtype: str, blocks: Blocks) -> int:
    """Rows of `x` in a block: all, or as many as are allowed, a multiple of what a tile has."""
    most = min(LARGEST_ROWS[dtype], LARGEST_SHARES[dtype] // blocks.groups)
    return min(rows, most // _TILE_ROWS * _TILE_ROWS)


def _block(size: int, unit: int) -> int:
    """A multiple of `unit` that goes over `size` in equal steps with little to spare."""
    steps = -(-size // (LARGEST_INPUTS // unit * unit))
    return -(-size // (steps * unit)) * unit
