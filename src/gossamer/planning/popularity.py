"""Which slices are asked for: the mix of one day, for schedulers, and how much of it is twisted.

Source: Jouppi et al. 2023, arXiv 2304.01433, table 2 and section 2.
"""

import dataclasses
import math
import types
from collections.abc import Mapping

from gossamer.planning.slices import parse_slice

POPULARITY: Mapping[str, float] = types.MappingProxyType(
    {
        "1x1x1": 2.1,
        "1x1x2": 0.4,
        "1x2x2": 6.7,
        "2x2x2": 4.7,
        "2x2x4": 6.4,
        "2x4x4": 8.9,
        "4x4x4": 13.9,
        "4x4x8_T": 16.0,
        "4x4x8_NT": 1.5,
        "4x4x12": 0.7,
        "4x8x8_T": 9.2,
        "4x8x8_NT": 1.5,
        "4x4x16": 1.0,
        "4x8x12": 0.1,
        "8x8x8": 9.6,
        "4x8x16": 1.7,
        "4x4x32": 0.6,
        "8x8x12": 0.7,
        "8x8x16_T": 1.8,
        "8x8x16_NT": 1.4,
        "4x16x16": 0.3,
        "4x4x64": 0.1,
        "4x8x32": 0.1,
        "8x12x16": 0.1,
        "4x4x96": 0.1,
        "8x8x24": 0.1,
        "8x16x16_T": 1.4,
        "8x16x16_NT": 0.3,
        "12x16x16": 5.7,
        "4x4x192": 0.4,
    }
)
"""Percent of the slices used on one day in November 2022, those of at least 0.1 percent.

`_T` is twisted, `_NT` could be. What is missing to 100 was used less.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwistShares:
    """How much of a mix of slices is twisted, as fractions.

    Attributes:
        twisted: of all slices, those that are.
        twistable: of all slices, those that are or could be.
        used: of those that could be, those that are.
        of_cubes: of the slices of one cube or more, those that are twisted.
    """

    twisted: float
    twistable: float
    used: float
    of_cubes: float


def twist_shares(popularity: Mapping[str, float] = POPULARITY) -> TwistShares:
    """How much of a mix is twisted; what is missing to 100 percent counts as untwisted cubes.

    Args:
        popularity: percent of the slices that have each name.

    Raises:
        ValueError: a percentage is negative, all are more than 100, or no slice has that name.

    Example:
        >>> shares = twist_shares()
        >>> print(f"{shares.twisted:.0%} {shares.twistable:.0%} {shares.used:.0%}")
        28% 33% 86%
    """
    if min(popularity.values(), default=0.0) < 0 or math.fsum(popularity.values()) > 100 + 1e-9:
        raise ValueError(f"Percentages need to be 0 or more and 100 together, got {popularity}.")
    slices = [(parse_slice(name), percent / 100) for name, percent in popularity.items()]
    twisted = math.fsum(share for each, share in slices if each.twisted)
    twistable = math.fsum(share for each, share in slices if each.twistable)
    parts = math.fsum(share for each, share in slices if not each.cubes)
    return TwistShares(
        twisted=twisted,
        twistable=twistable,
        used=twisted / twistable if twistable else 0.0,
        of_cubes=twisted / (1 - parts) if parts < 1 else 0.0,
    )
