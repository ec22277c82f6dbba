"""The published methods of one-shot compression, a file each: settings and the solve.

What they have in common is in `method`; the walk over a model's blocks that calls them is in
`gossamer.compression`.
"""

from gossamer.compression.methods.awq import AWQ
from gossamer.compression.methods.gptq import GPTQ, WandaGPTQ, gptq
from gossamer.compression.methods.method import Method, Solved
from gossamer.compression.methods.obr import OBR, obr
from gossamer.compression.methods.prune import (
    Magnitude,
    Random,
    Wanda,
    magnitude_mask,
    prune_codes,
    random_mask,
    wanda_mask,
)
from gossamer.compression.methods.rtn import RTN
from gossamer.compression.methods.smoothquant import SmoothQuant
from gossamer.compression.methods.sparsegpt import SparseGPT, sparsegpt
from gossamer.compression.methods.table import METHODS, MethodName, make_method

__all__ = [
    "AWQ",
    "GPTQ",
    "METHODS",
    "OBR",
    "RTN",
    "Magnitude",
    "Method",
    "MethodName",
    "Random",
    "SmoothQuant",
    "Solved",
    "SparseGPT",
    "Wanda",
    "WandaGPTQ",
    "gptq",
    "magnitude_mask",
    "make_method",
    "obr",
    "prune_codes",
    "random_mask",
    "sparsegpt",
    "wanda_mask",
]
