"""Distributions: how much of each weight is pruned when many share one target."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.sparsity.patterns import NM, Pattern, Share

Distribution: TypeAlias = Literal["uniform", "erdos-renyi", "erdos-renyi-kernel"]


def density(pattern: Pattern, progress: Share = 1.0) -> float | Float[Array, ""]:
    """The fraction of a weight that a pattern keeps, when a share of its sparsity is asked for.

    Example:
        >>> density(NM(1, 16)), density(NM(1, 4), progress=0.5)
        (0.0625, 0.5)
    """
    if not isinstance(pattern, NM):
        return 1 - progress * pattern.sparsity
    pruned = progress * (pattern.m - pattern.n)
    whole = round(pruned) if isinstance(pruned, int | float) else jnp.round(pruned)
    return 1 - whole / pattern.m


def distribute(
    weights: Mapping[str, tuple[str, Pattern, tuple[int, ...]]], distribution: Distribution
) -> dict[str, Pattern]:
    """The pattern of every weight, when each rule's sparsity is a target for all its weights.

    Args:
        weights: by path: the rule, its pattern and the weight's shape. The weights of a rule share
            its target; N:M fixes the sparsity of every group, so it stays as it is.
        distribution: `uniform` prunes the same fraction of every weight, the others as
            `erdos_renyi` says, without and with what a kernel has beside inputs and outputs.

    Example:
        >>> from gossamer.sparsity import Unstructured
        >>> shapes = {"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)}
        >>> rule = {path: (".*", Unstructured(0.5), shape) for path, shape in shapes.items()}
        >>> {k: round(v.sparsity, 5) for k, v in distribute(rule, "erdos-renyi-kernel").items()}
        {'a': 0.0, 'b': 0.30952, 'c': 0.65476}
    """
    patterns = {path: pattern for path, (_, pattern, _) in weights.items()}
    if distribution == "uniform":
        return patterns
    for rule in {rule for rule, pattern, _ in weights.values() if not isinstance(pattern, NM)}:
        shapes = {path: shape for path, (its, _, shape) in weights.items() if its == rule}
        pattern = patterns[next(iter(shapes))]
        assert not isinstance(pattern, NM)
        shares = erdos_renyi(shapes, pattern.sparsity, kernel=distribution == "erdos-renyi-kernel")
        for path, sparsity in shares.items():
            patterns[path] = dataclasses.replace(pattern, sparsity=sparsity)
    return patterns


def erdos_renyi(
    shapes: Mapping[str, tuple[int, ...]], sparsity: float, *, kernel: bool
) -> dict[str, float]:
    r"""Sparsities by which small weights stay denser, and the total is as asked.

    .. math:: d_i = \epsilon \frac{\sum_k n_k}{\prod_k n_k}

    over all axes of a weight, or its last two alone; :math:`\epsilon` is such that the total is
    right, and weights whose density would exceed 1 are dense.

    Args:
        shapes: of the weights, by path.
        sparsity: of all of them together, in [0, 1).
        kernel: whether the axes of a convolution's window count too.

    Example:
        >>> shares = erdos_renyi({"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)}, 0.8, kernel=True)
        >>> {path: round(share, 5) for path, share in shares.items()}
        {'a': 0.55556, 'b': 0.7037, 'c': 0.85185}

    Source: Mocanu et al. 2018, arXiv 1707.04780; with kernels Evci et al. 2020, arXiv 1911.11134.
    """
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    raw = {}
    for path, shape in shapes.items():
        counted = shape if kernel else shape[-2:]
        raw[path] = sum(counted) / math.prod(counted)
    dense: set[str] = set()
    while len(dense) < len(shapes):
        # Whole numbers of zeros, as JaxPruner counts them: its check values need it.
        kept = sum(n - math.floor(sparsity * n) for p, n in sizes.items() if p not in dense)
        lost = sum(math.floor(sparsity * sizes[path]) for path in dense)
        scale = (kept - lost) / sum(raw[p] * sizes[p] for p in shapes if p not in dense)
        most = max(raw[path] for path in shapes if path not in dense)
        if scale * most <= 1:
            return {path: 0.0 if path in dense else 1 - scale * raw[path] for path in shapes}
        dense |= {path for path in shapes if path not in dense and raw[path] == most}
    return dict.fromkeys(shapes, 0.0)
