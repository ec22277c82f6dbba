"""The methods by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from gossamer.compression.methods.awq import AWQ
from gossamer.compression.methods.gptq import GPTQ, WandaGPTQ
from gossamer.compression.methods.method import Method
from gossamer.compression.methods.obr import OBR
from gossamer.compression.methods.prune import Magnitude, Random, Wanda
from gossamer.compression.methods.rtn import RTN
from gossamer.compression.methods.smoothquant import SmoothQuant
from gossamer.compression.methods.sparsegpt import SparseGPT

MethodName: TypeAlias = Literal[
    "rtn",
    "magnitude",
    "random",
    "wanda",
    "sparsegpt",
    "gptq",
    "wanda-gptq",
    "obr",
    "awq",
    "smoothquant",
]

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        RTN,
        Magnitude,
        Random,
        Wanda,
        SparseGPT,
        GPTQ,
        WandaGPTQ,
        OBR,
        AWQ,
        SmoothQuant,
    )
}
"""Every method by its name."""


def make_method(name: str, settings: Mapping[str, Any]) -> Method:
    """A method of the table with some of its settings.

    Raises:
        ValueError: there is no such method, or it has no such setting, or not of that value.

    Example:
        >>> make_method("gptq", {"damping": 0.1})
        GPTQ(act_order=True, damping=0.1)
    """
    if name not in METHODS:
        raise ValueError(f"Method {name!r} is none of {list(METHODS)}.")
    for setting in settings:
        having = [each.name for each in METHODS.values() if setting in _settings(each)]
        if name not in having:
            raise ValueError(f"Method {name!r} has no {setting!r}; those that have it: {having}.")
    return METHODS[name](**settings)


def _settings(method: type[Method]) -> list[str]:
    return [field.name for field in dataclasses.fields(method)]
