"""Which weights a method is for, as its recipe says, and which of them cannot be pruned."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp

from gossamer.sparsity.patterns import Pattern


@runtime_checkable
class Selected(Protocol):
    """A rule, as far as sparsity knows it."""

    @property
    def path(self) -> str:
        """The regular expression that matched."""
        ...

    @property
    def pattern(self) -> Pattern | None:
        """Which weights stay; None keeps all."""
        ...


@runtime_checkable
class Selection(Protocol):
    """What says which weights have which pattern: a `Recipe`."""

    def match(self, paths: Iterable[str]) -> Mapping[str, Selected]:
        """The rule of each path that has one."""
        ...


def check_selected(
    name: str, rules: Mapping[str, Selected], arrays: Mapping[str, Any], axis: int
) -> None:
    """Looks at all the weights that a recipe selects; warns of embeddings that no rule names.

    Args:
        name: of the method.
        rules: of the paths that have one.
        arrays: the parameters by path, or their shapes and dtypes.
        axis: the axis that products sum over.

    Raises:
        ValueError: no rule has a pattern, or weights cannot have theirs: all of them are named.
    """
    rules = {path: rule for path, rule in rules.items() if rule.pattern is not None}
    if not rules:
        raise ValueError(
            f"No rule of {name}'s recipe has a pattern: there is nothing to prune; name one, "
            "such as NM(2, 4), in `pattern`."
        )
    faults = [
        fault
        for path, rule in rules.items()
        if (fault := _fault(path, arrays[path], rule, axis)) is not None
    ]
    if faults:
        raise ValueError(f"{name} cannot prune: " + "; ".join(faults) + ".")
    for path, rule in rules.items():
        if "embed" in path.lower() and "embed" not in rule.path.lower():
            warnings.warn(
                f"The rule {rule.path!r} selects {path}, which looks like an embedding; pruning"
                " it is seldom meant. Name it in the rule, or narrow the rule.",
                stacklevel=2,
            )


def _fault(path: str, leaf: Any, rule: Selected, axis: int) -> str | None:
    """Why a weight cannot have its pattern, in words; None if it can."""
    if leaf.ndim < -axis if axis < 0 else leaf.ndim <= axis:
        return f"{path} {leaf.shape} has no axis {axis}; narrow {rule.path!r}"
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return f"{path} is {leaf.dtype}, not floats; narrow {rule.path!r}"
    try:
        assert rule.pattern is not None
        rule.pattern.check(leaf.shape, axis)
    except ValueError as error:
        return f"{path}: {str(error).rstrip('.')}"
    return None
