"""Round to nearest: what every other way of rounding must beat."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.compression.methods.method import Method, Solved, Task, prunes_not
from gossamer.quantization import Format
from gossamer.recipe import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class RTN(Method):
    """Rounds each weight to the nearest value of its format, without looking at inputs."""

    name: ClassVar[str] = "rtn"
    calibrated: ClassVar[bool] = False

    def why_not(self, rule: Rule) -> str | None:
        """It does not prune."""
        return prunes_not(self.name, rule)

    def compress(self, task: Task) -> Solved:
        """Rounds."""
        return nearest(task.kernel, None, task.rule.weights)


def nearest(
    kernel: Float[Array, "in out"], mask: Bool[Array, "in out"] | None, format: Format | None
) -> Solved:
    """Prunes by a mask, then rounds each weight by itself.

    Args:
        kernel: the dense weights.
        mask: True where a weight is kept; None keeps all.
        format: None leaves floats.
    """
    pruned = kernel if mask is None else jnp.where(mask, kernel, 0)
    if format is None:
        return Solved(pruned, mask)
    codes = format.encode(pruned)
    return Solved(format.decode(codes), mask, codes)
