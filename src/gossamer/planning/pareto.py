"""Pareto fronts: what nothing else beats in two things at once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int


def pareto(
    first: Float[np.ndarray, " plans"],
    second: Float[np.ndarray, " plans"],
    places: Int[np.ndarray, " some"] | None = None,
) -> Iterator[int]:
    """Places of those that none is better than in one and as good in the other.

    Args:
        first: the less, the better.
        second: the same.
        places: that are looked at; None: all.

    Yields:
        Places, by rising `first`.

    Example:
        >>> list(pareto(np.array([3.0, 1.0, 2.0]), np.array([1.0, 4.0, 5.0])))
        [1, 0]
    """
    places = np.arange(len(first)) if places is None else places
    order = places[np.lexsort((second[places], first[places]))]
    best = np.minimum.accumulate(second[order])
    better = np.concatenate([[True], best[1:] < best[:-1]]) if len(order) else []
    yield from (int(place) for place in order[better])
