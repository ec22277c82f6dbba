"""Joules and grams of CO2e: of chip-seconds, so of a token, a request or a training run alike.

Watts, the overhead of the building (PUE), the carbon of a kilowatt-hour and what is offset are
separate inputs: published figures differ in which of them they include.
"""

import dataclasses
from collections.abc import Mapping

from gossamer.planning.names import find_known

_JOULES_PER_KWH = 3.6e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Where chips run.

    Attributes:
        pue: power usage effectiveness: joules that the building takes for one of its
            computers.
        grams_per_kwh: of CO2e for a kilowatt-hour there, before offsets.
        offset: share of the CO2e that the operator claims to make good elsewhere; never taken from
            `grams`, only shown beside it.
        source: where the figures are found.
    """

    pue: float
    grams_per_kwh: float
    offset: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if not self.pue >= 1:
            raise ValueError(f"pue needs 1 or more: no building takes less, got {self.pue}.")
        if not self.grams_per_kwh >= 0:
            raise ValueError(f"grams_per_kwh needs to be 0 or more, got {self.grams_per_kwh}.")
        if not 0 <= self.offset <= 1:
            raise ValueError(f"offset needs to be a share from 0 to 1, got {self.offset}.")


SITES: Mapping[str, Site] = {
    "world": Site(
        pue=1.57,
        grams_per_kwh=475.0,
        source="Jouppi et al. 2023, arXiv 2304.01433: averages of 2021",
    ),
    "google-oklahoma": Site(
        pue=1.10,
        grams_per_kwh=74.0,
        source="Jouppi et al. 2023, arXiv 2304.01433: 2021, hourly matched energy",
    ),
    "palm": Site(
        pue=1.08,
        grams_per_kwh=79.0,
        source="Chowdhery et al. 2022, arXiv 2204.02311: the site where PaLM was trained",
    ),
}
"""Sites whose figures are published, by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What something takes, at the plug of the building.

    Attributes:
        joules: of energy.
        grams: of CO2e, before offsets.
        net_grams: of CO2e, less what is offset.
    """

    joules: float
    grams: float
    net_grams: float

    @property
    def kwh(self) -> float:
        """The energy in kilowatt-hours."""
        return self.joules / _JOULES_PER_KWH

    def per(self, count: float) -> "Footprint":
        """The part of one of so many: of a token, if all of this was for so many tokens."""
        if not count > 0:
            raise ValueError(f"A footprint is shared among more than 0, got {count}.")
        parts = {name: value / count for name, value in dataclasses.asdict(self).items()}
        return Footprint(**parts)


def find_site(name: str) -> Site:
    """A site by its name.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> find_site("google-oklahoma").pue
        1.1
    """
    others = "Others are given by their PUE and grams of CO2e per kilowatt-hour."
    return find_known("site", name, SITES, others)


def footprint(chip_seconds: float, *, watts: float, site: Site) -> Footprint:
    """Energy and CO2e of chips that run for a time.

    Args:
        chip_seconds: chips times seconds: of a token, to have what a token takes.
        watts: mean power of a chip. What is published for TPUs is chip and memory alone; a chip's
            share of host, network and storage is to be added.
        site: where they run.

    Example:
        >>> year = footprint(4096 * 1200 * 3600.0, watts=170.0, site=find_site("google-oklahoma"))
        >>> round(year.kwh), round(year.grams / 1e6, 1)
        (919142, 68.0)
    """
    if not chip_seconds >= 0:
        raise ValueError(f"chip_seconds needs to be 0 or more, got {chip_seconds}.")
    if not watts > 0:
        raise ValueError(f"watts needs to be positive, got {watts}.")
    joules = chip_seconds * watts * site.pue
    grams = joules / _JOULES_PER_KWH * site.grams_per_kwh
    return Footprint(joules=joules, grams=grams, net_grams=grams * (1 - site.offset))


def performance_per_watt(speedup: float, *, watts: float, other_watts: float) -> float:
    """How many times the work a joule of one machine does, compared with another.

    Args:
        speedup: of the one over the other.
        watts: of the one.
        other_watts: of the other.

    Example:
        >>> v4_over_v3 = performance_per_watt(2.1, watts=170.0, other_watts=220.0)
        >>> round(v4_over_v3, 2)
        2.72
    """
    for name, value in (("speedup", speedup), ("watts", watts), ("other_watts", other_watts)):
        if not value > 0:
            raise ValueError(f"{name} needs to be positive, got {value}.")
    return speedup * other_watts / watts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relative:
    """How many times as much one way of training takes as another.

    Attributes:
        energy: of the building.
        co2e: of its grid.
    """

    energy: float
    co2e: float


def relative_impact(
    site: Site, other: Site, *, machine: float = 1.0, model: float = 1.0
) -> Relative:
    """How many times what is taken here would be taken on another machine elsewhere: the "4 Ms".

    Model, machine, mechanization (PUE) and map (grid) are factors that multiply.

    Args:
        site: here.
        other: elsewhere.
        machine: performance a watt of the machine here, over that elsewhere.
        model: operations that the model elsewhere needs, over those here.

    Example:
        >>> found = relative_impact(SITES["google-oklahoma"], SITES["world"], machine=2.0)
        >>> round(found.energy, 4), round(found.co2e, 3)
        (2.8545, 18.323)

    Source: Jouppi et al. 2023, arXiv 2304.01433, which takes 2 for the machine, the
    low end of the 2 to 6 that it quotes.
    """
    for name, value in (("machine", machine), ("model", model)):
        if not value > 0:
            raise ValueError(f"{name} needs to be positive, got {value}.")
    if not site.grams_per_kwh > 0:
        raise ValueError("Nothing is a multiple of the CO2e of a site that has none.")
    energy = model * machine * other.pue / site.pue
    return Relative(energy=energy, co2e=energy * other.grams_per_kwh / site.grams_per_kwh)
