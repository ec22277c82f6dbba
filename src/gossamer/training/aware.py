"""A recipe around the weights of a model, inside a loss."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from gossamer.packing import packed_product
from gossamer.parameters import (
    array_leaves,
    is_variable,
    leaves_by_path,
    parameter_paths,
    replace_leaves,
    value_of,
)
from gossamer.quantization import Backward, QuantAware, Scheme
from gossamer.quantization.scheme import STRAIGHT_THROUGH
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import Pattern, magnitude

Params = TypeVar("Params")
Order: TypeAlias = Literal["prune-then-quantize", "quantize-then-prune"]


def quantize_aware(
    params: Params,
    recipe: Recipe | str,
    *,
    multiply: Literal["native", "fake"] = "native",
    activation_scale: Literal["row", "tensor"] = "row",
    backward: Backward = STRAIGHT_THROUGH,
    masks: Mapping[str, Bool[Array, "in out"]] | None = None,
    order: Order = "prune-then-quantize",
    key: jax.Array | None = None,
) -> Params:
    """Wraps the weights that `recipe` selects, so that a model of ours is trained as compressed.

    Call it inside the loss: what is trained, differentiated and kept stay plain arrays. The forward
    pass computes what the model computes when these weights are compressed by the same recipe with
    the method `magnitude`, and packed. What is pruned gets no gradient.

    Args:
        params: an NNX state, or any pytree; kernels are `[in, out]` and multiply through
            `gossamer.weights.dot`.
        recipe: a recipe, a preset's name or a recipe file.
        multiply: see `Scheme`.
        activation_scale: see `Scheme`.
        backward: the rule for gradients.
        masks: True where a weight is kept, for some of the paths that have a pattern; the largest
            of the current weights are kept elsewhere.
        order: quantizing first is allowed, and warns.
        key: for stochastic rounding of gradients; a new one at every step.

    Returns:
        A copy of `params`; leaves that no rule matches are the same objects.

    Raises:
        ValueError: a rule matches nothing, or something that is no matrix of floats, or does not
            fit the shape; a mask has no pattern or another shape; formats do not go together.

    Example:
        >>> from gossamer.quantization import Int
        >>> from gossamer.sparsity import NM
        >>> rule = Rule(path="w", pattern=NM(2, 4), weights=Int(4))
        >>> params = {"w": jnp.array([[1.0], [-7.0], [2.0], [0.5]])}
        >>> quantize_aware(params, Recipe(rules=(rule,)))["w"].materialize().ravel()
        Array([ 0., -7.,  2.,  0.], dtype=float32)

    Source of the order: Harma et al. 2024, arXiv 2405.20935, Theorem 3.6.
    """
    rules = Recipe.load(recipe).match(parameter_paths(params))
    chosen = {i: (path, rules[path]) for i, path, _ in array_leaves(params) if path in rules}
    leaves, structure = jax.tree.flatten(params, is_leaf=is_variable)
    masks = masks or {}
    faults = [
        fault
        for i, (path, rule) in chosen.items()
        if (fault := _fault(path, value_of(leaves[i]), rule, masks.get(path)))
    ]
    faults += [f"the mask of {path!r} belongs to no rule" for path in masks if path not in rules]
    if faults:
        raise ValueError("The weights cannot be wrapped: " + "; ".join(faults) + ".")
    if order == "quantize-then-prune":
        warnings.warn(
            "Weights are quantized before they are pruned: rounding can change which are largest, "
            "and the error can exceed that of both together (Harma et al. 2024, arXiv 2405.20935, "
            "Theorem 3.6); order='prune-then-quantize' cannot.",
            stacklevel=2,
        )
    for number, (i, (path, rule)) in enumerate(chosen.items()):
        weight_key = None if key is None else jax.random.fold_in(key, number)
        scheme = _scheme(rule, multiply, activation_scale, backward)
        wrapped = _wrap(value_of(leaves[i]), rule, scheme, masks.get(path), order, weight_key)
        leaves[i] = leaves[i].replace(wrapped) if is_variable(leaves[i]) else wrapped
    return jax.tree.unflatten(structure, leaves)


def fake_quantize(params: Params, recipe: Recipe | str, *, reduction_axis: int = 0) -> Params:
    """Rounds the weights that `recipe` gives a format, for models that multiply by themselves.

    What comes back are plain arrays of the same shapes and dtypes, with straight-through gradients:
    any model's own code runs on them. Patterns are left to a sparse-training method, so one recipe
    serves both: `fake_quantize(method.weights(params, state), recipe)` prunes, then
    rounds, and `compress_pytree` gives the same values after training.

    Args:
        params: any pytree: dicts, Linen variables, Equinox modules, ...
        recipe: a recipe, a preset's name or a recipe file.
        reduction_axis: the axis that products sum over: 0 where kernels are `[in, out]` (Flax,
            Haiku), 1 where they are `[out, in]` (Equinox, PyTorch).

    Returns:
        A copy of `params`; leaves that get no format are the same objects.

    Raises:
        ValueError: no rule has a format, a rule matches nothing, or something that is no matrix of
            floats, asks for quantized activations, or does not fit the shape.

    Example:
        >>> from gossamer.quantization import Int
        >>> recipe = Recipe(rules=(Rule(path="w", weights=Int(4)),))
        >>> params = {"w": jnp.array([[1.2], [-7.0]]), "b": jnp.zeros(1)}
        >>> fake_quantize(params, recipe)["w"].ravel()
        Array([ 1., -7.], dtype=float32)
        >>> loss = lambda params: 3 * fake_quantize(params, recipe)["w"].sum()
        >>> jax.grad(loss)(params)["w"].ravel()
        Array([3., 3.], dtype=float32)
    """
    if reduction_axis not in (0, 1):
        raise ValueError(f"A matrix has the reduction axis 0 or 1, got {reduction_axis=}.")
    rules = Recipe.load(recipe).match(parameter_paths(params))
    rules = {path: rule for path, rule in rules.items() if rule.weights is not None}
    if not rules:
        raise ValueError("No rule of the recipe names a format in `weights`: nothing is rounded.")
    kernels = {path: leaf for path, leaf in leaves_by_path(params).items() if path in rules}
    faults = [
        fault
        for path, leaf in kernels.items()
        if (fault := _rounding_fault(path, leaf, rules[path], reduction_axis))
    ]
    if faults:
        raise ValueError("The weights cannot be rounded: " + "; ".join(faults) + ".")
    return replace_leaves(
        params,
        {path: _rounded(leaf, rules[path], reduction_axis) for path, leaf in kernels.items()},
    )


def _rounding_fault(path: str, leaf: Any, rule: Rule, axis: int) -> str | None:
    """Why the values of `leaf` cannot be rounded, in words; None if they can."""
    if rule.activations is not None:
        return (
            f"{path} {leaf.shape}: the model's own code multiplies, so rule {rule.path!r} cannot "
            "quantize activations; leave `activations` out"
        )
    return _fault(path, leaf, dataclasses.replace(rule, pattern=None), None, axis)


def _rounded(leaf: jax.Array | np.ndarray, rule: Rule, axis: int) -> Array:
    """The values that the codes of one weight stand for, in its own dtype."""
    assert rule.weights is not None
    kernel = jnp.asarray(leaf if axis == 0 else leaf.T)
    values = QuantAware(kernel, Scheme(weights=rule.weights)).materialize()
    return (values if axis == 0 else values.T).astype(leaf.dtype)


def _scheme(
    rule: Rule,
    multiply: Literal["native", "fake"],
    activation_scale: Literal["row", "tensor"],
    backward: Backward,
) -> Scheme | None:
    """How a rule's products are quantized; None for a rule that quantizes nothing."""
    if rule.weights is None:
        return None
    return Scheme(
        weights=rule.weights,
        activations=rule.activations,
        activation_scale=activation_scale if rule.activations is not None else "row",
        multiply=multiply,
        backward=backward,
        product=packed_product,
    )


def _fault(path: str, leaf: Any, rule: Rule, mask: Any, axis: int = 0) -> str | None:
    """Why `leaf` cannot be wrapped, in words; None if it can."""
    where = f"{path} {leaf.shape}"
    if leaf.ndim != 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return (
            f"{where} is {leaf.dtype}, and rules are for matrices of floats; narrow {rule.path!r}"
        )
    if mask is not None and rule.pattern is None:
        return f"{where} has a mask, and rule {rule.path!r} no pattern"
    if mask is not None and mask.shape != leaf.shape:
        return f"{where} has a mask of shape {mask.shape}"
    try:
        if rule.pattern is not None:
            rule.pattern.check(leaf.shape, axis)
        if rule.weights is not None:
            rule.weights.groups(leaf.shape[axis])
    except ValueError as error:
        return f"{where}: {str(error).rstrip('.')}"
    return None


def _wrap(
    leaf: jax.Array | np.ndarray,
    rule: Rule,
    scheme: Scheme | None,
    mask: Array | None,
    order: Order,
    key: jax.Array | None,
) -> Array | QuantAware:
    """One weight, pruned and wrapped."""
    kernel = jnp.asarray(leaf)
    if scheme is None:
        return kernel if rule.pattern is None else _prune(kernel, rule.pattern, mask)
    weight = QuantAware(kernel, scheme, key)
    if rule.pattern is None:
        return weight
    if order == "prune-then-quantize":
        return dataclasses.replace(weight, kernel=_prune(kernel, rule.pattern, mask))
    if mask is None:
        mask = rule.pattern.mask(magnitude(jax.lax.stop_gradient(weight.materialize())), 0)
    return dataclasses.replace(weight, mask=mask)


def _prune(kernel: Array, pattern: Pattern, mask: Array | None) -> Array:
    """Zeros for what the mask, or else its size, does not keep; they get no gradient."""
    if mask is None:
        mask = pattern.mask(magnitude(jax.lax.stop_gradient(kernel)), 0)
    return jnp.where(mask, kernel, jnp.zeros((), kernel.dtype))
