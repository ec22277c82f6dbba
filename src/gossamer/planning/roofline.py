"""Rooflines: what a chip reaches against what its peak and its memory allow.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
multicore architectures", 2009.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from gossamer import plots
from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import StepConstants
from gossamer.planning.step import StepCost

_LEAST, _MOST = 0.1, 30_000.0  # FLOPs a byte: of reading caches, and of prefills of many prompts


@dataclasses.dataclass(frozen=True)
class RooflinePoint:
    """A step on a roofline.

    Attributes:
        intensity: FLOPs for each byte of the chip's memory.
        flops_per_second: that a chip reaches.
    """

    intensity: float
    flops_per_second: float


def roofline_points(
    cost: StepCost, chip: Chip, constants: StepConstants
) -> tuple[RooflinePoint, ...]:
    """Steps as points, one for each batch.

    Args:
        cost: of one batch or of many.
        chip: that it was planned for.
        constants: that it was planned with. FLOPs of products that are faster than bf16, in
            integers or 2:4, count by the time they take.

    Example:
        >>> from gossamer.planning import IDEAL, Mesh, find_chip, find_shape, step_cost
        >>> cost = step_cost(find_shape("palm-540b"), find_chip("tpu-v4"), Mesh.of(4, 4, 4),
        ...                  layout="ws-2d", attention="batch", phase="decode", batch=64,
        ...                  context=2048, constants=IDEAL)
        >>> [point] = roofline_points(cost, find_chip("tpu-v4"), IDEAL)
        >>> round(point.intensity, 1)  # 64 FLOPs a byte of weights, less for the cache
        63.8
    """
    peak = chip.bf16_flops * constants.matmul_efficiency
    flops, moved, seconds = (
        np.atleast_1d(np.asarray(values, np.float64))
        for values in (
            cost.compute_seconds * peak,
            cost.memory_seconds * chip.memory_bandwidth,
            cost.seconds,
        )
    )
    return tuple(
        RooflinePoint(*pair)
        for pair in zip((flops / moved).tolist(), (flops / seconds).tolist(), strict=True)
    )


def roof(chip: Chip, intensities: Sequence[float]) -> Float64[np.ndarray, " intensities"]:
    """FLOP/s that a chip's peak and memory allow at so many FLOPs a byte.

    Example:
        >>> from gossamer.planning import find_chip
        >>> for flops in roof(find_chip("tpu-v4"), [1.0, 1000.0]):
        ...     print(f"{flops:.3g}")
        1.2e+12
        2.75e+14
    """
    bound = chip.memory_bandwidth * np.asarray(intensities, np.float64)
    return np.minimum(bound, chip.bf16_flops)


def roofline_plot(chip: Chip, lines: Mapping[str, Sequence[RooflinePoint]], *, title: str) -> bytes:
    """Draws steps under a chip's roof, a line a name, as PNG bytes."""
    at = [_LEAST, chip.bf16_flops / chip.memory_bandwidth, _MOST]
    drawn = {f"{chip.name}: memory, then bf16": list(zip(at, roof(chip, at).tolist(), strict=True))}
    drawn |= {
        name: [(point.intensity, point.flops_per_second) for point in points]
        for name, points in lines.items()
    }
    return plots.line_plot(
        drawn,
        x="FLOPs a byte of memory",
        y="FLOP/s of a chip",
        title=title,
        log_x=True,
        log_y=True,
    )
