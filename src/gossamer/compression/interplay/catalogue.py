"""The formats and patterns of the grid, by the names that papers give them."""

from gossamer.quantization import HBFP, MX, NVFP4, Format, Int
from gossamer.sparsity import NM, Pattern, Unstructured

FORMATS: dict[str, Format] = {
    "HBFP8": HBFP(8),
    "HBFP6": HBFP(6),
    "HBFP4": HBFP(4),
    "MXFP8-E4M3": MX("e4m3"),
    "MXFP8-E5M2": MX("e5m2"),
    "MXFP6-E2M3": MX("e2m3"),
    "MXFP6-E3M2": MX("e3m2"),
    "MXFP4": MX("e2m1"),
    "MXINT8": MX("int8"),
    "NVFP4": NVFP4(),
    "INT8": Int(8),
    "INT4": Int(4),
    "INT2": Int(2),
}
"""Block formats have blocks along the reduction axis; integers have a scale per output."""

GRID_FORMATS = (
    "INT8",
    "INT4",
    "MXFP8-E4M3",
    "MXFP6-E2M3",
    "MXFP4",
    "HBFP8",
    "HBFP6",
    "NVFP4",
)
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
