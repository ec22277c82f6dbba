"""Names that are chosen from a few."""

from collections.abc import Iterable


def check_known(kind: str, value: str, known: Iterable[str]) -> None:
    """Raises where a name is none of those known, and lists them.

    Args:
        kind: what the names are of, in the plural.
        value: the name.
        known: all there are.

    Raises:
        ValueError: it is not among them.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(f"There are no {kind} {value!r}; known are {', '.join(known)}.")
