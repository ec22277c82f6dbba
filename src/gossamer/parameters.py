"""Names of the parameters of any model: the array leaves of a pytree, as recipes see them.

A leaf is named by its keys joined by dots, `layers.0.weight` or `encoder.mlp.kernel`; for an NNX
state these are the names of `nnx.to_flat_state`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

Params = TypeVar("Params")


def parameter_paths(params: Any) -> list[str]:
    """The names of all array leaves, as a recipe's rules see them.

    Example:
        >>> import jax.numpy as jnp
        >>> parameter_paths({"layers": [{"kernel": jnp.ones((2, 2))}], "activation": jnp.tanh})
        ['layers.0.kernel']
    """
    return [path for _, path, _ in array_leaves(params)]


def array_leaves(params: Any) -> Iterator[tuple[int, str, jax.Array | np.ndarray]]:
    """Position among the leaves, path and value of each array; variables are leaves here."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_variable)
    for i, (keys, leaf) in enumerate(leaves):
        value = value_of(leaf)
        if isinstance(value, jax.Array | np.ndarray):
            yield i, jax.tree_util.keystr(keys, simple=True, separator="."), value


def is_variable(leaf: Any) -> bool:
    """Whether a leaf is an NNX variable, which holds a value."""
    return isinstance(leaf, nnx.Variable)


def value_of(leaf: Any) -> Any:
    """What an NNX variable holds; any other leaf as it is."""
    return leaf.get_value() if is_variable(leaf) else leaf


def leaves_by_path(params: Any) -> dict[str, Any]:
    """The value of every array leaf.

    Example:
        >>> leaves_by_path({"a": [1, np.zeros(2)]})
        {'a.1': array([0., 0.])}
    """
    return {path: value for _, path, value in array_leaves(params)}


def replace_leaves(params: Params, values: Mapping[str, Any]) -> Params:
    """A copy with other values at these paths; all other leaves are the same objects.

    Example:
        >>> replace_leaves({"a": [1, np.zeros(2)]}, {"a.1": 3})
        {'a': [1, 3]}
    """
    leaves, structure = jax.tree.flatten(params, is_leaf=is_variable)
    for i, path, _ in array_leaves(params):
        if path in values:
            leaf, value = leaves[i], values[path]
            leaves[i] = leaf.replace(value) if is_variable(leaf) else value
    return jax.tree.unflatten(structure, leaves)
