"""Rescaled inputs: what makes an input of a block is divided, its kernels multiplied, by the same.

The model computes the same, up to rounding; what changes is how hard its weights and activations
are to quantize. SmoothQuant and AWQ choose the factors.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.methods.method import Method
from gossamer.models import Rescalable
from gossamer.recipe import Rule


def rescalable(
    pairs: Sequence[Rescalable],
    method: Method,
    shapes: Mapping[str, tuple[int, ...]],
    rules: Mapping[str, Rule],
) -> list[Rescalable]:
    """The inputs of a block that a method rescales under a recipe.

    Args:
        pairs: the inputs of a block that can be rescaled.
        method: what is done.
        shapes: parameter's path within the block -> shape.
        rules: kernel's path within the block -> rule. An input is rescaled where all its kernels
            are quantized, and where each of its channels is one output of its source: not behind
            grouped values, whose heads are read several times.
    """
    return [
        pair
        for pair in pairs
        if method.rescales(pair)
        and all(_quantized(rules.get(f"{name}.kernel")) for name in pair.projections)
        and shapes[_proportional(pair)[0]][-1] == shapes[f"{pair.projections[0]}.kernel"][0]
    ]


def _quantized(rule: Rule | None) -> bool:
    return rule is not None and rule.weights is not None


def _proportional(pair: Rescalable) -> tuple[str, str]:
    """Paths of the parameters to which the input is proportional; not every model has the second.

    Outputs are the last axis of each.
    """
    return f"{pair.source}.{'scale' if pair.norm else 'kernel'}", f"{pair.source}.bias"


def sources(pairs: Sequence[Rescalable], present: Sequence[str]) -> Iterator[str]:
    """Paths of the parameters that take the divisions."""
    for pair in pairs:
        yield from (path for path in _proportional(pair) if path in present)


def fold(
    weights: Mapping[str, Float[np.ndarray, "..."]],
    pair: Rescalable,
    factors: Float[np.ndarray, " in"],
) -> dict[str, Float[np.ndarray, "..."]]:
    """The parameters of a block that change when an input is divided by `factors`.

    Example:
        >>> pair = Rescalable("norm", ("up",), norm=True)
        >>> weights = {"norm.scale": np.ones(2), "up.kernel": np.ones((2, 1))}
        >>> fold(weights, pair, np.array([2.0, 4.0]))
        {'norm.scale': array([0.5 , 0.25]), 'up.kernel': array([[2.],
               [4.]])}
    """
    changed = {path: weights[path] / factors for path in _proportional(pair) if path in weights}
    kernels = [f"{name}.kernel" for name in pair.projections]
    return changed | {path: weights[path] * factors[:, None] for path in kernels}


def rescaled_gram(
    gram: Float[Array, "in in"], factors: Float[np.ndarray, " in"]
) -> Float[Array, "in in"]:
    """The Gram matrix of inputs that are divided by `factors`."""
    inverse = jnp.asarray(1 / factors, jnp.float32)
    return gram * inverse[:, None] * inverse
