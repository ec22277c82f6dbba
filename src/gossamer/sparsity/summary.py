"""What masks and gradients do while a model is trained: a few numbers a step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.parameters import leaves_by_path
from gossamer.sparsity.methods.method import SparseState

TOTAL = "total"


def summary(state: Any, params: Any, grads: Any = None) -> dict[str, dict[str, Float[Array, ""]]]:
    """Sparsity, flips and gradient variance of the weights that a method selects.

    It reads masks and gradients once, runs under `jit`, and fits into a step that logs it.

    Args:
        state: an optimizer's state with a method's in it.
        params: what is trained.
        grads: at the weights that the forward pass saw; None leaves their variance out.

    Returns:
        `sparsity`, the fraction pruned; `flips`, the fraction whose mask changed in the last step;
        `gradient_variance`, of the sizes of a weight's gradients. Each by path, and the total.

    Raises:
        ValueError: no method's state is in `state`.

    Example:
        >>> import optax
        >>> from gossamer.recipe import Recipe, Rule
        >>> from gossamer.sparsity import NM
        >>> from gossamer.sparsity.methods import STE
        >>> method = STE(recipe=Recipe(rules=(Rule(path="w", pattern=NM(1, 4)),)))
        >>> params = {"w": jnp.arange(8.0)[:, None]}
        >>> state = method.wrap(optax.sgd(0.1)).init(params)
        >>> print(summary(state, params)["sparsity"]["total"])
        0.75

    Source: Kao et al. 2022, arXiv 2209.07617, for flips (its SAD, here a fraction);
    Bambhaniya et al. 2024, arXiv 2402.04744, figure of the gradients' variance.
    """
    is_sparse = lambda leaf: isinstance(leaf, SparseState)  # noqa: E731
    states = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_sparse) if is_sparse(leaf)]
    if not states:
        raise ValueError("The optimizer state holds no method's state; `method.wrap` makes one.")
    weights = leaves_by_path(params)
    masks = {path: mask for each in states for path, mask in each.masks.items()}
    flips = {path: count for each in states for path, count in each.flips.items()}
    sizes = {path: weights[path].size for path in masks}
    pruned = {path: sizes[path] - mask.kept() for path, mask in masks.items()}
    result = {"sparsity": _fractions(pruned, sizes), "flips": _fractions(flips, sizes)}
    if grads is not None:
        gradients = leaves_by_path(grads)
        result["gradient_variance"] = _variances({path: gradients[path] for path in masks})
    return result


def _fractions(counts: dict[str, Array], sizes: dict[str, int]) -> dict[str, Float[Array, ""]]:
    """Counts over sizes, and all counts over all sizes."""
    by_path = {path: counts[path] / sizes[path] for path in sizes}
    # Counts of single weights are below 2^31; their total may not be, so fractions are added.
    whole = sum(sizes.values())
    total = sum(share * (sizes[path] / whole) for path, share in by_path.items())
    return {**by_path, TOTAL: jnp.asarray(total)}


def _variances(grads: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """The variance of |g| of each, and of all pooled."""
    sizes = {path: grad.size for path, grad in grads.items()}
    means = {path: jnp.mean(jnp.abs(grad)) for path, grad in grads.items()}
    squares = {path: jnp.mean(jnp.square(grad)) for path, grad in grads.items()}
    whole = sum(sizes.values())
    mean = sum(means[path] * (sizes[path] / whole) for path in sizes)
    square = sum(squares[path] * (sizes[path] / whole) for path in sizes)
    by_path = {path: squares[path] - jnp.square(means[path]) for path in sizes}
    return {**by_path, TOTAL: jnp.asarray(square - mean**2)}
