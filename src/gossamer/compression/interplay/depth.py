"""How an error grows through a model: hidden states against those of the dense model.

Both measures are kept. The absolute error grows with the hidden states themselves, which are larger
in later blocks; the relative one says how much of what a block sees is wrong.

Source: Harma et al. 2024, arXiv 2405.20935, plot the L2 error of layer outputs against depth (as
their reviews describe it, absolute); a reviewer asked for the relative one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int

from gossamer.evaluation import perplexity
from gossamer.loading import Checkpoint


@dataclasses.dataclass(eq=False)
class DepthErrors:
    """Compares hidden states, in the order in which they come, with those of the dense model.

    Attributes:
        reference: of the dense model: behind the embedding, then behind each block.
        relative: L2 norm of each change over that of the reference.
        absolute: root of the mean over tokens of the squared L2 norm of each change.
    """

    reference: Sequence[Float[np.ndarray, "B T D"]]
    relative: list[float] = dataclasses.field(default_factory=list)
    absolute: list[float] = dataclasses.field(default_factory=list)

    def watch(self, hidden: Float[Array, "B T D"]) -> None:
        """Takes the next hidden states."""
        dense = np.asarray(self.reference[len(self.relative)])
        # Sums of float32 in float64, without a copy of the whole in float64.
        squares = np.square(np.asarray(hidden) - dense).sum(dtype=np.float64)
        base = np.square(dense).sum(dtype=np.float64)
        tokens = dense.shape[0] * dense.shape[1]
        self.relative.append(float(np.sqrt(squares / base)) if base else 0.0)
        self.absolute.append(float(np.sqrt(squares / tokens)))


def error_by_depth(
    dense: Checkpoint, compressed: Checkpoint, tokens: Int[np.ndarray, "windows context"]
) -> DepthErrors:
    """Puts windows through both models and compares their hidden states behind every block.

    Raises:
        ValueError: a window has fewer than two tokens or more than the models' positions, or a
            likelihood is not finite.
    """
    reference: list[np.ndarray] = []
    perplexity(dense, tokens, watch=lambda hidden: reference.append(np.asarray(hidden)))
    errors = DepthErrors(reference)
    perplexity(compressed, tokens, watch=errors.watch)
    return errors
