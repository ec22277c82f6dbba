"""Which weights stay: patterns turn scores into masks, scores say how much a weight matters.

Nothing here knows a model, a file or a number format.
"""

from gossamer.sparsity.patterns import NM, Block, Channel, Pattern, Unstructured
from gossamer.sparsity.scores import magnitude, random, wanda
from gossamer.sparsity.selection import lowest_of_highest, score_bits

__all__ = [
    "NM",
    "Block",
    "Channel",
    "Pattern",
    "Unstructured",
    "lowest_of_highest",
    "magnitude",
    "random",
    "score_bits",
    "wanda",
]
