"""Training models that are pruned and quantized: what goes around weights inside a loss.

Optimizers, loops and losses are the user's.
"""

from gossamer.training.aware import quantize_aware
from gossamer.training.injection import quantized_dot_general

__all__ = ["quantize_aware", "quantized_dot_general"]
