"""gossamer makes transformer models small and fast, and measures what that costs.

The names here are all that a script needs; each is imported when it is first used, so that
`gossamer --help` and `import gossamer` cost no JAX import.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gossamer.compression import compress
    from gossamer.inference import generate
    from gossamer.loading import load, save
    from gossamer.recipe import Recipe, Rule

__version__ = "0.1.0"
__all__ = ["Recipe", "Rule", "compress", "generate", "load", "save"]

_HOMES = {
    "Recipe": "gossamer.recipe",
    "Rule": "gossamer.recipe",
    "compress": "gossamer.compression",
    "generate": "gossamer.inference",
    "load": "gossamer.loading",
    "save": "gossamer.loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gossamer' has no attribute {name!r}; it has {__all__}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
