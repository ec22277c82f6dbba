"""What tokens take in joules and grams of CO2e, for questions that end in chip-seconds."""

import dataclasses
from typing import TYPE_CHECKING

from gossamer.cli.console import Command, arguments

if TYPE_CHECKING:
    from gossamer.planning import Chip, Site


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyOptions(Command):
    """A question whose answer has energy in it, where a chip's watts are known."""

    watts: float | None = None
    """Mean power of a chip with its share of host and network. Without it, what is published of
    chip and memory alone."""
    site: str = "world"
    """Where the chips are, for PUE and CO2e: world, google-oklahoma or palm."""

    def found_site(self) -> "Site":
        """The site of that name."""
        from gossamer.planning import find_site

        with arguments():
            return find_site(self.site)

    def per_token(self, chip: "Chip", chip_seconds: float) -> dict[str, float | None]:
        """Joules and grams of CO2e of a token that takes so long on one chip; None: no watts."""
        from gossamer.planning import footprint

        watts = chip.watts if self.watts is None else self.watts
        if watts is None:
            return {"joules_per_token": None, "grams_per_token": None}
        with arguments():
            found = footprint(chip_seconds, watts=watts, site=self.found_site())
        return {"joules_per_token": found.joules, "grams_per_token": found.grams}
