"""Names of the parameters of any model: the array leaves of a pytree, as recipes see them.

A leaf is named by its keys joined by dots, `layers.0.weight` or `encoder.mlp.kernel`; for an NNX
state these are the names of `nnx.to_flat_state`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx


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
