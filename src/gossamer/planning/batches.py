"""Costs of many candidates at once, and one of them."""

import dataclasses
from typing import TypeVar

import numpy as np

Costs = TypeVar("Costs")


def one_of(many: Costs, index: int) -> Costs:
    """One of many costs, with plain numbers.

    Args:
        many: a dataclass whose fields are numbers, or arrays with one for each candidate.
        index: of the candidate.
    """
    assert dataclasses.is_dataclass(many)
    assert not isinstance(many, type)
    fields = {field.name: getattr(many, field.name) for field in dataclasses.fields(many)}
    shape = np.broadcast_shapes(*(np.shape(value) for value in fields.values())) or (1,)
    return dataclasses.replace(
        many,
        **{name: np.broadcast_to(value, shape)[index].item() for name, value in fields.items()},
    )
