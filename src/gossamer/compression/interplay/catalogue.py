"""The formats and patterns of the grid, by the names that papers give them."""

from gossamer.quantization import Format, Int
from gossamer.sparsity import NM, Pattern, Unstructured

FORMATS: dict[str, Format] = {
    "INT8": Int(8),
    "INT4": Int(4),
    "INT2": Int(2),
}
"""Block formats have blocks along the reduction axis; integers have a scale per output."""

GRID_FORMATS = ("INT8", "INT4")
"""What a grid has where nothing else is asked for."""

PATTERNS: dict[str, Pattern] = {
    "50%": Unstructured(0.5),
    "2:4": NM(2, 4),
    "75%": Unstructured(0.75),
    "1:4": NM(1, 4),
}
"""Unstructured patterns compare by magnitude within a kernel, by Wanda's score within an output."""

GRID_PATTERNS = ("50%", "2:4")
"""What a grid has where nothing else is asked for."""
