"""`gossamer plan slice`: how slices of a machine are linked, and how much of it they can use."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.model import ModelCommand, chosen_weights

if TYPE_CHECKING:
    from gossamer.planning import Chip, Slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceQuestion(ModelCommand):
    """Slices of a machine of TPU v4's kind: hops, the load of links in an all-to-all and what a
    twist gains, and the goodput of a machine cut into such slices, with optical switches (any
    cubes) and without. With a model, also whether its weights fit.

    Example: gossamer plan slice --chips 256
    """

    chip: str = "tpu-v4"
    """A chip with a three-dimensional torus: tpu-v4, tpu-v5p, or one of --chip-file."""
    slice: str | None = None
    """One slice, such as 4x4x8, or 4x4x8_T with a twist. Without it, all of --chips."""
    chips: int | None = None
    """Chips of a slice."""
    model: str | None = None
    """A model whose weights are divided over a slice's chips: one that is known, such as
    palm-540b; a config.json; or a model as `gossamer compress` takes it."""
    weights: Literal["bf16", "int8", "int4"] | None = None
    """Bits of each weight and nothing else, as papers count. Without it and --recipe, those of a
    compressed model, else bf16."""
    recipe: str | None = None
    """A preset or a recipe file: weights take the bytes that they would take on disk."""
    host_availability: float = 0.99
    """Share of the time that a host works."""
    plot: Path | None = None
    """PNG file for maps of the link loads, side by side."""
    goodput_plot: Path | None = None
    """PNG file for curves of goodput over the chips of a slice, with optical switches and without,
    at --host-availability."""

    def run(self, console: Console) -> dict[str, Any]:
        """Describes each slice; see `gossamer.planning.Topology`."""
        from gossamer.planning import goodput_plot, parse_slice, plot_link_loads, slices_of

        chip = self.found_chip()
        if (self.slice is None) == (self.chips is None):
            raise WrongUseError("Give either --slice, one slice, or --chips, all of that size.")
        if chip.link_bandwidth is None or chip.torus_axes != 3:
            raise WrongUseError(f"Slices are of chips on a 3D torus, and {chip.name} has none.")
        weight_bytes = self._weight_bytes()
        with arguments():
            found = (parse_slice(self.slice),) if self.slice else slices_of(self.chips or 0)
            rows = [self._describe(each, chip) | _fit(each, chip, weight_bytes) for each in found]
        if self.plot is not None:
            topologies = {str(each): each.topology for each in found}
            self.plot.write_bytes(plot_link_loads(topologies))
        if self.goodput_plot is not None:
            with arguments():
                self.goodput_plot.write_bytes(goodput_plot([self.host_availability]))
        return {
            "chip": chip.name,
            "model": self.model,
            "weight_bytes": weight_bytes,
            "host_availability": self.host_availability,
            "slices": rows,
            "plot": None if self.plot is None else str(self.plot),
            "goodput_plot": None if self.goodput_plot is None else str(self.goodput_plot),
        }

    def _weight_bytes(self) -> int | None:
        """Of the whole model, if there is one."""
        from gossamer.planning import store_weights

        if self.model is None:
            if self.weights is not None or self.recipe is not None:
                raise WrongUseError("--weights and --recipe are of a model: give --model too.")
            return None
        shape, own = self.found_model(self.model)
        weights = chosen_weights(self.weights, self.recipe, own)
        with arguments():
            return store_weights(shape, weights).nbytes

    def _describe(self, each: "Slice", chip: "Chip") -> dict[str, Any]:
        from gossamer.planning import static_goodput, switched_goodput

        topology = each.topology
        load, chips = topology.max_link_load, each.chips
        assert chip.link_bandwidth is not None
        goodput = each.cubes > 0
        return {
            "slice": str(each),
            "chips": chips,
            "twistable": each.twistable,
            "diameter": topology.diameter,
            "mean_hops": topology.mean_hops if chips > 1 else 0.0,
            "max_link_load": load,
            "all_to_all_bytes_per_second": (chips - 1) * chip.link_bandwidth / load if load else 0,
            "goodput": switched_goodput(chips, self.host_availability) if goodput else None,
            "goodput_static": static_goodput(chips, self.host_availability) if goodput else None,
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A line for each slice."""
        header = ["slice", "chips", "diameter", "mean hops", "link load", "all-to-all, GB/s a chip"]
        header += ["goodput", "without switches"]
        if result["model"] is not None:
            header += ["weights, GiB a chip", "fit"]
        rows = [
            [
                row["slice"],
                str(row["chips"]),
                str(row["diameter"]),
                f"{row['mean_hops']:.3f}",
                f"{row['max_link_load']:.1f}",
                f"{row['all_to_all_bytes_per_second'] / 1e9:.1f}",
                *(
                    "-" if row[k] is None else f"{row[k]:.1%}"
                    for k in ("goodput", "goodput_static")
                ),
                *_fit_cells(row),
            ]
            for row in result["slices"]
        ]
        for line in aligned([header, *rows], words=1):
            console.out.print(line)
        if result["plot"]:
            console.out.print(f"link loads: {result['plot']}")
        if result["goodput_plot"]:
            console.out.print(f"goodput: {result['goodput_plot']}")


def _fit(each: "Slice", chip: "Chip", weight_bytes: int | None) -> dict[str, Any]:
    """A chip's equal share of a model's weights, and whether its memory holds that."""
    if weight_bytes is None:
        return {"weight_bytes_per_chip": None, "fits": None}
    share = weight_bytes / each.chips
    return {"weight_bytes_per_chip": share, "fits": share <= chip.memory_bytes}


def _fit_cells(row: dict[str, Any]) -> list[str]:
    if row["fits"] is None:
        return []
    return [f"{row['weight_bytes_per_chip'] / 2**30:.2f}", "yes" if row["fits"] else "no"]
