"""`gossamer plan step`: one forward pass of a model in one layout on so many chips."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.energy import EnergyOptions
from gossamer.cli.plan.model import ModelCommand, chosen_weights

if TYPE_CHECKING:
    from gossamer.planning import Chip, Mesh, ModelShape, StepConstants

PARTS = ("compute", "memory", "communication", "fixed")
_PLOTTED_BATCHES = tuple(2**power for power in range(13))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(ModelCommand, EnergyOptions):
    """What one forward pass takes: a prefill, or a step of decoding, in one of the layouts of
    Pope et al. 2022 on so many chips.

    Example: gossamer plan step --model palm-540b --chip tpu-v4 --chips 64 --layout ws-2d
    --attention batch --phase decode --batch 512 --context 2048 --weights bf16
    """

    model: str
    """A model that is known, such as palm-540b, llama-2-70b or opt-66b; a config.json; or a model
    as `gossamer compress` takes it."""
    chips: int | None = None
    """How many; their mesh is the paper's. Or give --mesh."""
    mesh: str | None = None
    """X, Y and Z, such as 4x4x8."""
    layout: Literal["ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz"] = "ws-2d"
    """Weights stay where they are, in one or two dimensions, or are gathered over x, xy or xyz."""
    attention: Literal["heads", "batch"] = "batch"
    """What attention is divided over."""
    phase: Literal["prefill", "decode"] = "decode"
    """Reads prompts, or makes one token of each sequence."""
    batch: int
    """Sequences."""
    context: int
    """Tokens of each sequence, those of the pass included."""
    tokens: int | None = None
    """New tokens of each sequence. Without it, 1 in decoding and the whole context in prefill."""
    weights: Literal["bf16", "int8", "int4"] | None = None
    """Bits of each weight and nothing else, as papers count. Without it and --recipe, those of a
    compressed model, else bf16."""
    recipe: str | None = None
    """A preset or a recipe file: weights take the bytes that they would take on disk."""
    cache: Literal["bf16", "int8"] = "bf16"
    """Keys and values."""
    pad_heads: bool = False
    """Add heads until the layout divides them."""
    losses: Literal["calibrated", "ideal", "ideal-flat"] = "calibrated"
    """As fitted to measurements on TPU v4; none; or none and all links for every collective, as the
    paper's formulas have it."""
    plot: Path | None = None
    """PNG file for a roofline, from one sequence to the largest batch that fits."""

    def run(self, console: Console) -> dict[str, Any]:
        """Plans the pass; see `gossamer.planning.step_cost`."""
        from gossamer.planning import memory_use, step_cost, with_padded_heads

        chip = self.found_chip()
        shape, own = self.found_model(self.model)
        weights = chosen_weights(self.weights, self.recipe, own)
        sizes = self._sizes(weights)
        with arguments():
            mesh = self._mesh(chip)
            cost = step_cost(shape, chip, mesh, **sizes, batch=self.batch, pad_heads=self.pad_heads)
            padded = with_padded_heads(shape, mesh, self.layout) if self.pad_heads else shape
        use = memory_use(
            padded,
            mesh,
            self.layout,
            self.attention,
            batch=self.batch,
            context=self.context,
            tokens=cost.tokens,
            weights=weights,
            cache=self.cache,
        )
        if self.plot is not None:
            self.plot.write_bytes(self._roofline(padded, chip, mesh, sizes))
        return {
            "model": shape.name,
            "chip": chip.name,
            "chips": mesh.chips,
            "mesh": str(mesh),
            "layout": self.layout,
            "attention": self.attention,
            "phase": self.phase,
            "batch": self.batch,
            "context": self.context,
            "weights": weights if isinstance(weights, str) else weights.name,
            "cache": self.cache,
            "losses": self.losses,
            **dataclasses.asdict(cost),
            "memory_bytes": {
                field.name: float(getattr(use, field.name)) for field in dataclasses.fields(use)
            },
            "chip_memory_bytes": chip.memory_bytes,
            **self.per_token(chip, float(cost.chip_ms_per_token) / 1e3),
            "plot": None if self.plot is None else str(self.plot),
        }

    def _sizes(self, weights: Any) -> dict[str, Any]:
        return {
            "layout": self.layout,
            "attention": self.attention,
            "phase": self.phase,
            "context": self.context,
            "tokens": self.tokens,
            "weights": weights,
            "cache": self.cache,
            "constants": self._constants(),
        }

    def _constants(self) -> "StepConstants":
        from gossamer.planning import CALIBRATED, IDEAL, IDEAL_FLAT

        return {"calibrated": CALIBRATED, "ideal": IDEAL, "ideal-flat": IDEAL_FLAT}[self.losses]

    def _mesh(self, chip: "Chip") -> "Mesh":
        from gossamer.planning import Mesh

        if (self.mesh is None) == (self.chips is None):
            raise WrongUseError("Give either --chips, how many, or --mesh, their axes.")
        if self.mesh is not None:
            return Mesh.parse(self.mesh)
        return Mesh.of_chips(self.chips or 0, chip.torus_axes)

    def _roofline(
        self, shape: "ModelShape", chip: "Chip", mesh: "Mesh", sizes: dict[str, Any]
    ) -> bytes:
        """Of batches that this one's layout divides and that fit, and of this one."""
        from gossamer.planning import roofline_plot, roofline_points, step_cost

        points, largest = [], self.batch
        for batch in sorted({*_PLOTTED_BATCHES, self.batch}):
            try:
                cost = step_cost(shape, chip, mesh, **sizes, batch=batch)
            except ValueError:
                continue
            points += roofline_points(cost, chip, sizes["constants"])
            largest = batch
        title = f"{shape.name} on {mesh.chips} {chip.name}, {self.phase} at {self.context} tokens"
        return roofline_plot(chip, {f"batches up to {largest}": points}, title=title)

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The time and its parts, the memory and the energy."""
        console.out.print(
            f"{1e3 * result['seconds']:,.2f} ms, {1e6 * result['seconds_per_layer']:,.0f} us a "
            f"layer, {result['mfu']:.1%} MFU, {result['chip_ms_per_token']:.3g} chip-ms a token"
        )
        rows = [["part", "ms", "of the step"]]
        for part in PARTS:
            seconds = result[f"{part}_seconds"]
            rows.append([part, f"{1e3 * seconds:,.2f}", f"{seconds / result['seconds']:.0%}"])
        for line in aligned(rows, words=1):
            console.out.print(line)
        console.out.print("Reading or gathering weights goes on while they are multiplied.")
        memory = ", ".join(
            f"{name} {value / 2**30:.1f}" for name, value in result["memory_bytes"].items()
        )
        console.out.print(
            f"{result['memory_bytes_per_chip'] / 2**30:.1f} of "
            f"{result['chip_memory_bytes'] / 2**30:.1f} GiB a chip: {memory}"
        )
        if result["joules_per_token"] is not None:
            gross, net = (1e3 * result[f"{name}_per_token"] for name in ("grams", "net_grams"))
            console.out.print(
                f"{result['joules_per_token']:.3g} J and {gross:.3g} mg of CO2e a token "
                f"({self.site})" + (f", {net:.3g} mg after offsets" if net < gross else "")
            )
        if result["plot"]:
            console.out.print(f"roofline: {result['plot']}")
