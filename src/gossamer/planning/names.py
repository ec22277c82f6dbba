"""Names that are chosen from a few."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

Named = TypeVar("Named")


def check_known(kind: str, value: str, known: Iterable[str], others: str = "") -> None:
    """Raises where a name is none of those known, and lists them.

    Args:
        kind: what the names are of, in the singular.
        value: the name.
        known: all there are.
        others: how others are given, as a sentence.

    Raises:
        ValueError: it is not among them.
    """
    known = tuple(known)
    if value not in known:
        listed = f"There is no {kind} {value!r}; known are {', '.join(known)}."
        raise ValueError(f"{listed} {others}".rstrip())


def find_known(kind: str, name: str, known: Mapping[str, Named], others: str) -> Named:
    """What goes by a name; arguments and errors as of `check_known`."""
    check_known(kind, name, sorted(known), others)
    return known[name]
