"""Bytes of a model's weights as a recipe stores them, or at so many bits each."""

import dataclasses
import functools
import math
from typing import Literal, TypeAlias

from gossamer.packing import stored_bytes, why_dense
from gossamer.planning.chips import Chip
from gossamer.planning.names import check_known
from gossamer.planning.shapes import ModelShape
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM

Bits: TypeAlias = Literal["bf16", "int8", "int4"]
Weights: TypeAlias = Bits | Recipe
"""Bits of each weight, or what a recipe does to each kernel."""

BITS: dict[Bits, int] = {"bf16": 16, "int8": 8, "int4": 4}
_FLOAT32_BYTES, _BF16_BYTES = 4, 2
_LANES = 16  # outputs of a tile, as packed


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Bytes of a model's weights, and what its products are made of.

    Attributes:
        name: of the recipe, or the bits.
        block_bytes: of all blocks of each stack, by the stack's path.
        end_bytes: of embedding, output and the like.
        output_bytes: of the one that gives scores.
        integer: the fraction of block weights whose inputs are int8 too.
        sparse: the fraction that is 2:4, or sparser so that it is 2:4 as well.
        both: the fraction that is both.
    """

    name: str
    block_bytes: dict[str, int]
    end_bytes: int
    output_bytes: int
    integer: float = 0.0
    sparse: float = 0.0
    both: float = 0.0

    @property
    def nbytes(self) -> int:
        """Of all."""
        return sum(self.block_bytes.values()) + self.end_bytes

    def relative_compute(self, chip: Chip) -> float:
        """Seconds of the products with block weights, relative to bf16 at its peak."""
        faster = (chip.int8_ops or chip.bf16_flops) / chip.bf16_flops
        plain = 1 - self.integer - self.sparse + self.both
        return (
            plain
            + (self.integer - self.both) / faster
            + (self.sparse - self.both) / chip.sparse_speedup
            + self.both / (faster * chip.sparse_speedup)
        )


@functools.cache
def store_weights(shape: ModelShape, weights: Weights) -> StoredWeights:
    """Counts the bytes of a model's weights.

    Args:
        shape: of the model.
        weights: `bf16`, `int8` or `int4` count so many bits for each weight of the blocks and
            nothing else, and bf16 for the ends, as papers do. A recipe counts what `pack` stores,
            scales, indices and padding included; what it leaves as floats is bf16.

    Raises:
        ValueError: unknown bits; a rule matches nothing; a kernel does not divide into a format's
            groups: its path is named.

    Example:
        >>> from gossamer.planning import find_shape
        >>> palm = find_shape("palm-540b")
        >>> for weights in ("bf16", Recipe.load("int4"), Recipe.load("2:4-int4")):
        ...     print(round(store_weights(palm, weights).nbytes / 1e9))
        1081
        289
        222
    """
    if not isinstance(weights, Recipe):
        return _of_bits(shape, weights)
    rules = weights.match(shape.kernels)
    sizes = {
        path: _kernel_bytes(path, kernel, rules.get(path)) for path, kernel in shape.kernels.items()
    }
    blocks = {
        stack: sum(size for path, size in sizes.items() if path.startswith(f"{stack}."))
        for stack in shape.stacks
    }
    integer, sparse = (
        {path for path in shape.kernels if test(rules.get(path))}
        for test in (_is_integer, _is_sparse)
    )
    return StoredWeights(
        name=weights.name,
        block_bytes=blocks,
        end_bytes=sum(sizes[path] for path in shape.end_kernels),
        output_bytes=sizes[shape.output_path],
        integer=_share(shape, integer),
        sparse=_share(shape, sparse),
        both=_share(shape, integer & sparse),
    )


@functools.cache
def kernel_bytes(kernel: tuple[int, int], rule: Rule | None) -> int:
    """Bytes of a kernel `(in, out)`, as `pack` and `pack_floats` store it; floats are bf16.

    Raises:
        ValueError: the kernel does not divide into groups or whole bytes.

    Example:
        >>> kernel_bytes((64, 16), None)
        2048
    """
    rows, columns = kernel
    if rule is None or (rule.pattern is None and rule.weights is None):
        return _BF16_BYTES * rows * columns
    stored = stored_bytes(kernel, rule.pattern, rule.weights)
    if rule.weights is not None:
        return stored
    # Values that stay floats are bf16 here: their plane is half of what it is in float32.
    kept = rows * columns
    if isinstance(rule.pattern, NM) and why_dense(rule.pattern, None) is None:
        kept = rows // rule.pattern.m * rule.pattern.n * (columns + -columns % _LANES)
    return stored - (_FLOAT32_BYTES - _BF16_BYTES) * kept


def relative_compute(rule: Rule | None, chip: Chip) -> float:
    """Seconds of a product with a kernel, relative to bf16 at its peak.

    Less than 1 where the chip multiplies int8 faster and a rule makes activations integers too, or
    where it leaves out the zeros of 2:4.

    Example:
        >>> from gossamer.planning import find_chip
        >>> [rule, _] = Recipe.load("w8a8").rules
        >>> relative_compute(rule, find_chip("a100-80gb")), relative_compute(None, find_chip("cpu"))
        (0.5, 1.0)
    """
    seconds = 1.0
    if _is_integer(rule):
        seconds *= chip.bf16_flops / (chip.int8_ops or chip.bf16_flops)
    if _is_sparse(rule):
        seconds /= chip.sparse_speedup
    return seconds


def _kernel_bytes(path: str, kernel: tuple[int, int], rule: Rule | None) -> int:
    try:
        return kernel_bytes(kernel, rule)
    except ValueError as error:
        raise ValueError(f"{path} {kernel}: {error}") from error


def _of_bits(shape: ModelShape, bits: Bits) -> StoredWeights:
    check_known("bits of weights", bits, BITS)
    blocks = {
        stack: layers * sum(map(math.prod, shape.block_kernels(stack).values())) * BITS[bits] // 8
        for stack, layers in shape.stacks.items()
    }
    ends = shape.end_kernels
    return StoredWeights(
        name=bits,
        block_bytes=blocks,
        end_bytes=_BF16_BYTES * sum(map(math.prod, ends.values())),
        output_bytes=_BF16_BYTES * math.prod(ends[shape.output_path]),
    )


def _is_integer(rule: Rule | None) -> bool:
    """Whether products are of integers: activations of 8 bits or fewer too."""
    return rule is not None and isinstance(rule.activations, Int)


def _is_sparse(rule: Rule | None) -> bool:
    """Whether every pattern of the rule is a 2:4 one too, such as 1:4."""
    if rule is None or not isinstance(rule.pattern, NM):
        return False
    n, m = rule.pattern.n, rule.pattern.m
    return 4 * n <= 2 * m if 4 % m == 0 else m % 4 == 0 and n <= 2


def _share(shape: ModelShape, paths: set[str]) -> float:
    blocks = {path: math.prod(kernel) for path, kernel in shape.kernels.items()}
    for path in shape.end_kernels:
        del blocks[path]
    return sum(size for path, size in blocks.items() if path in paths) / sum(blocks.values())
