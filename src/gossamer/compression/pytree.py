"""One-shot compression of any pytree of parameters, whatever framework it comes from.

Weights are pruned by magnitude and rounded to nearest, without calibration. What comes back has
the type, the shapes and the dtypes of what went in, so the model's own code runs on it.
"""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossamer.compression.methods import magnitude_mask
from gossamer.parameters import array_leaves, is_variable, parameter_paths, value_of
from gossamer.quantization import Format
from gossamer.recipe import Recipe, Rule

Params = TypeVar("Params")


def compress_pytree(params: Params, recipe: Recipe | str, *, reduction_axis: int = 0) -> Params:
    """Prunes, then quantizes the weights that `recipe` selects, each on its own.

    A leaf is named by its keys joined by dots, `layers.0.weight` or `encoder.mlp.kernel`; for an
    NNX state these are the names of `nnx.to_flat_state`. A weight with a format gets the values
    that its codes stand for, rounded to its own dtype. `recipe.match(parameter_paths(params))`
    says which rule each path falls under.

    Args:
        params: dicts, lists, named tuples, dataclasses, Equinox or NNX modules, NNX states, ...
        recipe: a recipe, a preset's name or a recipe file.
        reduction_axis: the axis that the model's products sum over: 0 where kernels are
            `[in, out]` (Flax, Haiku), 1 where they are `[out, in]` (Equinox, PyTorch).

    Returns:
        A copy of `params` with compressed values; leaves that no rule matches are the same objects.

    Raises:
        ValueError: a rule matches nothing, or something that is no matrix of floats, asks for
            quantized activations or does not fit the shape; a weight holds NaN or Inf. All
            faults are listed.

    Example:
        >>> from gossamer.recipe import Rule
        >>> from gossamer.sparsity import NM
        >>> params = {"w": jnp.array([[1.0], [-3.0], [2.0], [0.5]]), "b": jnp.ones(1)}
        >>> compress_pytree(params, Recipe(rules=(Rule(path="w", pattern=NM(2, 4)),)))["w"].ravel()
        Array([ 0., -3.,  2.,  0.], dtype=float32)
    """
    if reduction_axis not in (0, 1):
        raise ValueError(f"A matrix has the reduction axis 0 or 1, got {reduction_axis=}.")
    rules = Recipe.load(recipe).match(parameter_paths(params))
    leaves, structure = jax.tree.flatten(params, is_leaf=is_variable)
    chosen = {i: (path, rules[path]) for i, path, _ in array_leaves(params) if path in rules}
    faults = [
        fault
        for i, (path, rule) in chosen.items()
        if (fault := _fault(path, value_of(leaves[i]), rule, reduction_axis))
    ]
    if faults:
        raise ValueError("The weights cannot be compressed: " + "; ".join(faults) + ".")
    for i, (_, rule) in chosen.items():
        values = _compress(value_of(leaves[i]), rule, reduction_axis)
        leaves[i] = leaves[i].replace(values) if is_variable(leaves[i]) else values
    return jax.tree.unflatten(structure, leaves)


def _fault(path: str, leaf: jax.Array | np.ndarray, rule: Rule, axis: int) -> str | None:
    """Why `rule` cannot be done to `leaf`, in words; None if it can."""
    where = f"{path} {leaf.shape}"
    if leaf.ndim != 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return (
            f"{where} is {leaf.dtype}, and rules are for matrices of floats; narrow {rule.path!r}"
        )
    if rule.activations is not None:
        return (
            f"{where}: the model's own code multiplies, so rule {rule.path!r} cannot quantize "
            "activations; leave `activations` out"
        )
    if not bool(jnp.isfinite(leaf).all()):
        return f"{where} holds NaN or Inf; mend the source model"
    try:
        if rule.pattern is not None:
            rule.pattern.check(leaf.shape, axis)
        if rule.weights is not None:
            rule.weights.groups(leaf.shape[axis])
    except ValueError as error:
        return f"{where}: {str(error).rstrip('.')}"
    return None


def _compress(leaf: jax.Array | np.ndarray, rule: Rule, axis: int) -> jax.Array | np.ndarray:
    """Prunes, then quantizes: in this order no mask is spoilt by rounding.

    Source of the order: Harma et al. 2024, arXiv 2405.20935.
    """

    def reduction_first(matrix: Any) -> Any:
        return matrix if axis == 0 else matrix.T  # its own inverse

    xp = np if isinstance(leaf, np.ndarray) else jnp
    if rule.pattern is not None:
        mask = magnitude_mask(jnp.asarray(reduction_first(leaf)), rule.pattern)
        leaf = xp.where(reduction_first(mask), leaf, xp.zeros((), leaf.dtype))
    if rule.weights is not None:
        rounded = _rounded(jnp.asarray(reduction_first(leaf)), rule.weights)
        leaf = xp.asarray(reduction_first(rounded)).astype(leaf.dtype)
    return leaf


@functools.partial(jax.jit, static_argnames="format")
def _rounded(kernel: Float[Array, "in out"], format: Format) -> Float[Array, "in out"]:
    return format.encode(kernel).decode()
