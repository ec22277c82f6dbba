"""`gossamer plan train`: hours, energy and CO2e of a training run."""

import dataclasses
from typing import TYPE_CHECKING, Any

from gossamer.cli.console import Console, arguments
from gossamer.cli.plan.chip import ChipCommand

if TYPE_CHECKING:
    from gossamer.planning import Site


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainQuestion(ChipCommand):
    """What training a model takes: hours, chip-hours, energy and grams of CO2e. Power, the
    building's overhead (PUE), the grid's carbon and offsets are inputs of their own.

    Example: gossamer plan train --parameters 540e9 --tokens 780e9 --chip tpu-v4 --chips 6144
    --mfu 0.46
    """

    parameters: float
    """Of the model, embeddings included."""
    tokens: float
    """That it is trained on."""
    chips: int
    """That train it."""
    mfu: float
    """Model-FLOPs utilization while steps are made, 0 to 1."""
    goodput: float = 1.0
    """Share of the time in which new steps are made."""
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

    def run(self, console: Console) -> dict[str, Any]:
        """Plans the run; see `gossamer.planning.plan_training`."""
        from gossamer.planning import plan_training

        chip = self.found_chip()
        with arguments():
            site = self._site()
            run = plan_training(
                parameters=self.parameters,
                tokens=self.tokens,
                chip=chip,
                chips=self.chips,
                mfu=self.mfu,
                site=site,
                goodput=self.goodput,
                watts=self.watts,
            )
        return {
            "chip": chip.name,
            "watts": chip.watts if self.watts is None else self.watts,
            "site": dataclasses.asdict(site),
            **dataclasses.asdict(run),
        }

    def _site(self) -> "Site":
        from gossamer.planning import find_site

        given = {"pue": self.pue, "grams_per_kwh": self.grams_per_kwh, "offset": self.offset}
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(find_site(self.site), **changes)

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A few lines."""
        whole, token = result["footprint"], result["token_footprint"]
        console.out.print(
            f"{result['hours']:,.1f} hours on {self.chips} {result['chip']}, "
            f"{result['chip_hours']:,.0f} chip-hours, {result['tokens_per_second']:,.0f} tokens/s, "
            f"{result['flops']:.3g} FLOPs"
        )
        console.out.print(
            f"{whole['joules'] / 3.6e9:,.2f} MWh at {result['watts']:g} W a chip and a PUE of "
            f"{result['site']['pue']:g}; {token['joules']:.3g} J a token"
        )
        net = ""
        if result["site"]["offset"]:
            net = f", {whole['net_grams'] / 1e6:,.2f} t after offsets"
        console.out.print(
            f"{whole['grams'] / 1e6:,.2f} t of CO2e at {result['site']['grams_per_kwh']:g} g a "
            f"kilowatt-hour{net}; {1e3 * token['grams']:.3g} mg a token"
        )
