"""Which weights stay: patterns turn scores into masks, scores say how much a weight matters.

`gossamer.sparsity.methods` holds what changes masks while a model is trained. Nothing here knows a
model, a file or a number format.
"""

from gossamer.sparsity.distributions import Distribution, density, distribute, erdos_renyi
from gossamer.sparsity.masks import Mask
from gossamer.sparsity.patterns import NM, Block, Channel, Pattern, Unstructured
from gossamer.sparsity.schedules import (
    Cubic,
    Exponential,
    Linear,
    Periodic,
    Schedule,
    Staircase,
    once,
)
from gossamer.sparsity.scores import magnitude, random, wanda
from gossamer.sparsity.selection import keep_highest, lowest_of_highest, score_bits
from gossamer.sparsity.summary import summary

__all__ = [
    "NM",
    "Block",
    "Channel",
    "Cubic",
    "Distribution",
    "Exponential",
    "Linear",
    "Mask",
    "Pattern",
    "Periodic",
    "Schedule",
    "Staircase",
    "Unstructured",
    "density",
    "distribute",
    "erdos_renyi",
    "keep_highest",
    "lowest_of_highest",
    "magnitude",
    "once",
    "random",
    "score_bits",
    "summary",
    "wanda",
]
