"""Attention of one new token over a cache, reading only the positions that are filled.

The kernels are in csrc/. The reference, plain JAX, is `gossamer.nn.attention`'s.
"""

from gossamer.kernels.attention.op import HEAD_SIZES, CachePlanes, attend, why_not

__all__ = ["HEAD_SIZES", "CachePlanes", "attend", "why_not"]
