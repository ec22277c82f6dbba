"""Kinds of packed kernels that the Pallas kernel multiplies: every way to decode, every scale."""

from gossamer.quantization import Int
from gossamer.sparsity import NM

LAYOUTS: dict[str, tuple[Int, NM | None]] = {
    "int8": (Int(8, scale="bfloat16"), None),  # words of fewer inputs than a register has rows
    "int4": (Int(4, group=64), None),
    "int2": (Int(2, scale="e8m0"), None),
    "asymmetric int4": (Int(4, group=64, scale="e4m3", symmetric=False), None),
    "1:2 int8": (Int(8), NM(1, 2)),  # places of one bit,
    "1:4 int2": (Int(2, group=64), NM(1, 4)),  # of two,
    "2:4 int4": (Int(4, group=64, scale="e8m0"), NM(2, 4)),
    "1:16 int8": (Int(8, scale="e4m3"), NM(1, 16)),  # and of four
    "4:16 int4": (Int(4), NM(4, 16)),
    "4:8 int4": (Int(4, group=64), NM(4, 8)),  # bitmaps of groups whose codes are half a word,
    "8:16 int4": (Int(4), NM(8, 16)),  # a word,
    "8:16 int8": (Int(8, group=64, scale="bfloat16"), NM(8, 16)),  # and two
}
