"""Number formats, and kernels held in them.

A format is a frozen value that turns arrays into codes and scales and back; `Quantized` is a
kernel in such a format with exact reference numerics. Bits and bytes are `gossamer.packing`'s.
"""

from gossamer.quantization.codebook import E2M1, Codebook
from gossamer.quantization.formats import Codes, Format, Int, ScaleType
from gossamer.quantization.quantized import Quantized

__all__ = ["E2M1", "Codebook", "Codes", "Format", "Int", "Quantized", "ScaleType"]
