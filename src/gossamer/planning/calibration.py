"""The few constants of `layer_time` fitted to measurements, and how well they then agree."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, StepConstants
from gossamer.planning.measurements import Measurement, predicted_seconds

Tables: TypeAlias = Mapping[str, Sequence[Measurement]]

START = StepConstants(
    fixed_seconds=50e-6,
    hop_seconds=1e-6,
    matmul_efficiency=0.8,
    link_efficiency=0.8,
    score_traffic=16.0,
    network="axis-by-axis",
    gather_links=1.0,
    name="not fitted",
)
"""Where a fit begins, so that what measurements do not tell is not taken from those left out: a
microsecond a hop, and scores in float32 that are written and read twice."""

# What is fitted: the unit it is fitted in, so that steps are of like size, and its bounds there.
_FITTED = {
    "fixed_seconds": (1e-6, 0.0, 1e4),
    "hop_seconds": (1e-6, 0.0, 1e3),
    "matmul_efficiency": (0.01, 1.0, 100.0),
    "link_efficiency": (0.01, 1.0, 100.0),
    "score_traffic": (1.0, 0.0, 1e3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How predictions agree with measurements.

    Attributes:
        ratios: predicted over measured seconds, in the measurements' order.
    """

    ratios: tuple[float, ...]

    @property
    def geometric_error(self) -> float:
        r"""exp(mean :math:`|\ln r|`) - 1: 0.05 where predictions are 5 % off on geometric mean."""
        return math.exp(np.abs(np.log(self.ratios)).mean()) - 1

    @property
    def worst_ratio(self) -> float:
        """How many times the worst prediction is off, 1 or more."""
        return math.exp(np.abs(np.log(self.ratios)).max())

    @property
    def bias(self) -> float:
        """The geometric mean of ratios minus 1: below 0 where predictions are too fast."""
        return math.exp(np.log(self.ratios).mean()) - 1

    def __str__(self) -> str:
        return (
            f"{self.geometric_error:.1%} off, bias {self.bias:+.1%}, worst {self.worst_ratio:.2f}x"
        )


def agreement(
    measurements: Sequence[Measurement], chip: Chip, constants: StepConstants = CALIBRATED
) -> Agreement:
    """Compares predictions with measurements.

    Args:
        measurements: at least one.
        chip: on which they were made.
        constants: losses.

    Raises:
        ValueError: there is none.

    Example:
        >>> from gossamer.planning import builtin_measurements, find_chip
        >>> print(agreement(builtin_measurements()["table-2"], find_chip("tpu-v4")))
        1.9% off, bias -0.1%, worst 1.04x
    """
    if not measurements:
        raise ValueError("There are no measurements to compare with.")
    measured = np.array([each.seconds for each in measurements])
    return Agreement(
        ratios=tuple((predicted_seconds(measurements, chip, constants) / measured).tolist())
    )


def fit_constants(
    tables: Tables, chip: Chip, start: StepConstants = START, name: str = "fitted"
) -> StepConstants:
    """The constants with the least squares of logarithms of predicted over measured seconds.

    Five are fitted; `network` and `gather_links` stay as they are in `start`.

    Args:
        tables: of measurements.
        chip: on which they were made.
        start: from where the search begins.
        name: of the result.

    Raises:
        ValueError: there are fewer measurements than constants.
    """
    from scipy.optimize import least_squares  # here: it would slow every start of the planner

    rows = [each for table in tables.values() for each in table]
    if len(rows) < len(_FITTED):
        raise ValueError(
            f"{len(_FITTED)} constants need as many measurements or more, got {len(rows)}."
        )
    units, low, high = map(np.array, zip(*_FITTED.values(), strict=True))

    def constants(values: np.ndarray) -> StepConstants:
        fitted = dict(zip(_FITTED, (values * units).tolist(), strict=True))
        return dataclasses.replace(start, **fitted, name=name)

    def residuals(values: np.ndarray) -> np.ndarray:
        return np.log(agreement(rows, chip, constants(values)).ratios)

    begin = np.array([getattr(start, field) for field in _FITTED]) / units
    # Tables of one slice alone hardly tell products from links: a valley that dogbox crosses in 5
    # steps, and trf in 66.
    found = least_squares(
        residuals,
        np.clip(begin, low, high),
        bounds=(low, high),
        x_scale=10.0,
        method="dogbox",
        ftol=1e-7,
        xtol=1e-5,
    )
    return constants(found.x)


def leave_one_table_out(
    tables: Tables, chip: Chip, start: StepConstants = START
) -> dict[str, Agreement]:
    """Agreement with each table of constants that are fitted to the others.

    Args:
        tables: of measurements, two or more.
        chip: on which they were made.
        start: from where each search begins.

    Raises:
        ValueError: too few measurements are left for a fit.
    """
    return {
        name: agreement(
            tables[name],
            chip,
            fit_constants({other: tables[other] for other in tables if other != name}, chip, start),
        )
        for name in tables
    }
