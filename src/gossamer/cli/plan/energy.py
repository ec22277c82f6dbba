"""What chip-seconds take in joules and grams of CO2e, for questions that end in them."""

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
    """Where the chips are: world, google-oklahoma or palm."""
    pue: float | None = None
    """Power usage effectiveness, instead of the site's."""
    grams_per_kwh: float | None = None
    """CO2e of a kilowatt-hour, instead of the site's."""
    offset: float | None = None
    """Share of the CO2e that is offset; shown beside the whole."""

    def found_site(self) -> "Site":
        """The site of that name, with what is given instead."""
        from gossamer.planning import find_site

        given = {"pue": self.pue, "grams_per_kwh": self.grams_per_kwh, "offset": self.offset}
        changes = {name: value for name, value in given.items() if value is not None}
        with arguments():
            return dataclasses.replace(find_site(self.site), **changes)

    def per_token(self, chip: "Chip", chip_seconds: float) -> dict[str, float | None]:
        """Joules and grams of CO2e of a token that takes so long on one chip; None: no watts."""
        from gossamer.planning import footprint

        watts = chip.watts if self.watts is None else self.watts
        site = self.found_site()
        if watts is None:
            return dict.fromkeys(("joules_per_token", "grams_per_token", "net_grams_per_token"))
        with arguments():
            found = footprint(chip_seconds, watts=watts, site=site)
        return {f"{name}_per_token": value for name, value in dataclasses.asdict(found).items()}
