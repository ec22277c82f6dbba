"""Number formats, and kernels held in them.

A format is a frozen value that turns arrays into codes and scales and back; `Quantized` is a
kernel in such a format with exact reference numerics, and `QuantAware` one that is trained as if it
were in it. Bits and bytes are `gossamer.packing`'s.
"""

from gossamer.quantization.aware import QuantAware
from gossamer.quantization.clipping import ClipSearch
from gossamer.quantization.codebook import E2M1, Codebook
from gossamer.quantization.float8 import Float8
from gossamer.quantization.formats import Codes, Format
from gossamer.quantization.hbfp import HBFP
from gossamer.quantization.integers import Int
from gossamer.quantization.mx import MX
from gossamer.quantization.nvfp4 import NVFP4
from gossamer.quantization.products import CodesProduct, Rows, encode_rows, multiply_codes
from gossamer.quantization.quantized import Quantized
from gossamer.quantization.scales import ScaleType
from gossamer.quantization.scheme import (
    Backward,
    FloatResiduals,
    QuantizedGradients,
    Scheme,
    StraightThrough,
)

__all__ = [
    "E2M1",
    "HBFP",
    "MX",
    "NVFP4",
    "Backward",
    "ClipSearch",
    "Codebook",
    "Codes",
    "CodesProduct",
    "Float8",
    "FloatResiduals",
    "Format",
    "Int",
    "QuantAware",
    "Quantized",
    "QuantizedGradients",
    "Rows",
    "ScaleType",
    "Scheme",
    "StraightThrough",
    "encode_rows",
    "multiply_codes",
]
