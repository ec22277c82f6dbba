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
from gossamer.parameters import array_leaves, is_variable, parameter_paths, value_of
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


def _fault(path: str, leaf: Any, rule: Rule, mask: Any) -> str | None:
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
            rule.pattern.check(leaf.shape, 0)
        if rule.weights is not None:
            rule.weights.groups(leaf.shape[0])
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
