"""Native kernels, for what plain JAX does slowly on a CPU.

They are C++ (`csrc/`), compiled when gossamer is installed. What a kernel computes is defined by a
reference in JAX, which also runs wherever the kernel does not.
"""

from gossamer.kernels.library import targets, why_unavailable

__all__ = ["targets", "why_unavailable"]
