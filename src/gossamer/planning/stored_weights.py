"""Bytes of a model's weights as a recipe stores them, or at so many bits each."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal, TypeAlias

from gossamer.packing import stored_bytes
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
_BF16_BYTES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Bytes of a model's weights, and the rules that its products are made by.

    Attributes:
        name: of the recipe, or the bits.
        block_bytes: of all blocks of each stack, by the stack's path.
        end_bytes: of embedding, output and the like.
        output_bytes: of the one that gives scores.
        shares: of the blocks' weights, by their rule; those of None are floats.
    """

    name: str
    block_bytes: dict[str, int]
    end_bytes: int
    output_bytes: int
    shares: Mapping[Rule | None, float]

    @property
    def nbytes(self) -> int:
        """Of all."""
        return sum(self.block_bytes.values()) + self.end_bytes

    def relative_compute(self, chip: Chip, *, skip_zeros: bool = True) -> float:
        """Seconds of the products with block weights; see `relative_compute` of a rule."""
        return sum(
            share * relative_compute(rule, chip, skip_zeros=skip_zeros)
            for rule, share in self.shares.items()
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
    return StoredWeights(
        name=weights.name,
        block_bytes=blocks,
        end_bytes=sum(sizes[path] for path in shape.end_kernels),
        output_bytes=sizes[shape.output_path],
        shares=_shares(shape, rules),
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
    pattern, format = (None, None) if rule is None else (rule.pattern, rule.weights)
    return stored_bytes(kernel, pattern, format, float_bits=16)


def relative_compute(rule: Rule | None, chip: Chip, *, skip_zeros: bool = True) -> float:
    """Seconds of a product with a kernel, relative to bf16 at its peak.

    Less than 1 where the chip multiplies int8 faster and a rule makes activations integers too, or
    where it leaves out the zeros of 2:4.

    Args:
        rule: of the kernel.
        chip: that multiplies.
        skip_zeros: whether it leaves them out if it can.

    Example:
        >>> from gossamer.planning import find_chip
        >>> [rule, _] = Recipe.load("w8a8").rules
        >>> relative_compute(rule, find_chip("a100-80gb")), relative_compute(None, find_chip("cpu"))
        (0.5, 1.0)
    """
    seconds = 1.0
    if _is_integer(rule):
        seconds *= chip.bf16_flops / (chip.int8_ops or chip.bf16_flops)
    if skip_zeros and _is_sparse(rule):
        seconds /= chip.sparse_speedup
    return seconds


def _kernel_bytes(path: str, kernel: tuple[int, int], rule: Rule | None) -> int:
    try:
        return kernel_bytes(kernel, rule)
    except ValueError as error:
        raise ValueError(f"{path} {kernel}: {error}") from error


def _of_bits(shape: ModelShape, bits: Bits) -> StoredWeights:
    check_known("number of bits of weights", bits, BITS)
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
        shares={None: 1.0},
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


def _shares(shape: ModelShape, rules: Mapping[str, Rule]) -> dict[Rule | None, float]:
    weights: Counter[Rule | None] = Counter()
    for path, kernel in shape.kernels.items():
        if path not in shape.end_kernels:
            weights[rules.get(path)] += math.prod(kernel)
    return {rule: count / weights.total() for rule, count in weights.items()}
