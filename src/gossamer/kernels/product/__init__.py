"""`x @ W` for a packed kernel W, by the fastest way there is for the device.

The kernels are in csrc/. The reference, plain JAX, is `gossamer.packing`'s: it decides what is
right.
"""

from gossamer.kernels.product.op import Layout, Planes, product, why_not

__all__ = ["Layout", "Planes", "product", "why_not"]
