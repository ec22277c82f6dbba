"""`gossamer plan train`: hours, energy and CO2e of a training run, and how to partition it."""

import dataclasses
from typing import TYPE_CHECKING, Any

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.energy import EnergyOptions
from gossamer.cli.plan.model import ModelCommand, chosen_weights

if TYPE_CHECKING:
    from gossamer.planning import Chip, Mesh, ModelShape, TrainingPlan, Weights

SHOWN = 5
"""Rows of the table; --json has all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainQuestion(ModelCommand, EnergyOptions):
    """What training a model takes: hours, chip-hours, energy and grams of CO2e. Of a --model, all
    slices and partitions are searched for the fastest step, and its MFU is found; else
    --parameters and a measured --mfu say it. Power, the building's overhead (PUE), the grid's
    carbon and offsets are inputs of their own.

    Example: gossamer plan train --model gpt-3-175b --tokens 300e9 --chip tpu-v4 --chips 512
    --batch 1536 --sequence 2048
    """

    model: str | None = None
    """A model whose sizes are known, one of --model-file, a config.json of Hugging Face, or a model
    as the other commands take it; with --batch and --sequence."""
    batch: int | None = None
    """Sequences of a step."""
    sequence: int | None = None
    """Tokens of a sequence."""
    slice: str | None = None
    """One slice, such as 4x8x16. Without it, all of --chips."""
    partition: str | None = None
    """One partition, by its stages of the pipeline, data, model1 and model2, and the dimensions of
    activations and weights: "16,4,1,8 1D/1D"; with --slice. Without it, all are searched."""
    overlap: bool = True
    """Gather weights, and sum gradients, while products go on."""
    recipe: str | None = None
    """What the model is trained for: a preset or a YAML file. Forward products of integers take the
    time of integers; backward ones, and what chips exchange, stay bf16."""
    parameters: float | None = None
    """Of the model, embeddings included, instead of --model."""
    mfu: float | None = None
    """Model-FLOPs utilization while steps are made, 0 to 1; with --parameters."""
    tokens: float
    """That it is trained on."""
    chips: int
    """That train it."""
    goodput: float = 1.0
    """Share of the time in which new steps are made."""

    def run(self, console: Console) -> dict[str, Any]:
        """Plans the run; see `search_training` and `plan_training` of `gossamer.planning`."""
        from gossamer.planning import plan_training

        self._check()
        chip = self.found_chip()
        site = self.found_site()
        found = self._of_parameters() if self.model is None else self._of_model(self.model, chip)
        with arguments():
            run = plan_training(
                parameters=found["parameters"],
                tokens=self.tokens,
                chip=chip,
                chips=self.chips,
                mfu=found["mfu"],
                site=site,
                goodput=self.goodput,
                watts=self.watts,
            )
        return {
            "chip": chip.name,
            "watts": chip.watts if self.watts is None else self.watts,
            "site": dataclasses.asdict(site),
            **found,
            **dataclasses.asdict(run),
        }

    def _check(self) -> None:
        """Refuses options that belong to the other way of asking."""
        if (self.model is None) == (self.parameters is None):
            raise WrongUseError(
                "Give either --model, whose partition and MFU are found, or --parameters and --mfu."
            )
        sizes = {"--batch": self.batch, "--sequence": self.sequence}
        choices = {"--slice": self.slice, "--partition": self.partition, "--recipe": self.recipe}
        if self.model is None:
            if self.mfu is None:
                raise WrongUseError("--parameters alone say no speed: give --mfu too, or --model.")
            if extra := [name for name, value in (sizes | choices).items() if value is not None]:
                raise WrongUseError(
                    f"--parameters alone cannot be partitioned: give {', '.join(extra)} with "
                    "--model."
                )
            return
        if self.mfu is not None:
            raise WrongUseError("The MFU of a --model is found: leave out --mfu.")
        if missing := [name for name, value in sizes.items() if value is None]:
            raise WrongUseError(f"A step of a --model needs {' and '.join(missing)} too.")
        if self.partition is not None and self.slice is None:
            raise WrongUseError("A --partition lies on one slice: give --slice too.")

    def _of_parameters(self) -> dict[str, Any]:
        return {
            "model": None,
            "parameters": self.parameters,
            "mfu": self.mfu,
            "partitions": [],
            "weights": None,
            "stored_bytes": None,
            "bf16_bytes": None,
        }

    def _of_model(self, name: str, chip: "Chip") -> dict[str, Any]:
        """The search, and what the trained model takes as its recipe stores it."""
        from gossamer.planning import store_weights

        shape, own = self.found_model(name)
        weights = chosen_weights(None, self.recipe, own)
        with arguments():
            plans = self._plans(shape, chip, weights)
            stored = store_weights(shape, weights)
        return {
            "model": shape.name,
            "parameters": shape.counted_parameters,
            "mfu": plans[0].step.mfu,
            "partitions": [_plain(plan) for plan in plans],
            "weights": stored.name,
            "stored_bytes": stored.nbytes,
            "bf16_bytes": store_weights(shape, "bf16").nbytes,
        }

    def _plans(
        self, shape: "ModelShape", chip: "Chip", weights: "Weights"
    ) -> "tuple[TrainingPlan, ...]":
        """The one that is asked for, or all that are possible, the fastest first."""
        from gossamer.planning import parse_partition, plan_partition, search_training

        assert self.batch is not None
        assert self.sequence is not None
        meshes = self._meshes(chip)
        sizes = {"batch": self.batch, "sequence": self.sequence, "overlap": self.overlap}
        if self.partition is None:
            return search_training(shape, chip, meshes=meshes, weights=weights, **sizes).plans
        return (
            plan_partition(
                shape, chip, meshes[0], parse_partition(self.partition), weights=weights, **sizes
            ),
        )

    def _meshes(self, chip: "Chip") -> "tuple[Mesh, ...]":
        from gossamer.planning import training_meshes

        meshes = training_meshes(chip, self.chips)
        if self.slice is None:
            return meshes
        if chosen := tuple(mesh for mesh in meshes if str(mesh) == self.slice):
            return chosen
        raise WrongUseError(
            f"Training on {self.chips} {chip.name} is planned for "
            f"{', '.join(map(str, meshes))}, without twists, which serve all-to-all alone; got "
            f"--slice {self.slice}."
        )

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The best partitions, and a few lines."""
        if result["partitions"]:
            for line in aligned(_table(result["partitions"][:SHOWN]), words=2):
                console.out.print(line)
            console.out.print(_stored(result))
        whole, token = result["footprint"], result["token_footprint"]
        console.out.print(
            f"{result['hours']:,.1f} hours on {self.chips} {result['chip']}, "
            f"{result['chip_hours']:,.0f} chip-hours, {result['tokens_per_second']:,.0f} tokens/s, "
            f"MFU {result['mfu']:.1%}, {result['flops']:.3g} FLOPs"
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


def _plain(plan: "TrainingPlan") -> dict[str, Any]:
    return {
        "slice": str(plan.mesh),
        "partition": str(plan.partition),
        "microbatches": plan.microbatches,
        "rematerialize": plan.rematerialize,
        **dataclasses.asdict(plan.step),
    }


def _stored(result: dict[str, Any]) -> str:
    size = f"{result['model']} takes {result['stored_bytes'] / 1e9:,.1f} GB as {result['weights']}"
    if result["stored_bytes"] == result["bf16_bytes"]:
        return size
    return f"{size}, {result['bf16_bytes'] / 1e9:,.1f} GB in bf16"


def _table(rows: list[dict[str, Any]]) -> list[list[str]]:
    header = ["slice", "[pipeline,data,model1,model2]", "microbatches", "computed again"]
    header += ["step, s", "sequences/s", "MFU", "bubble", "GiB a chip"]
    return [
        header,
        *(
            [
                row["slice"],
                row["partition"],
                str(row["microbatches"]),
                "yes" if row["rematerialize"] else "no",
                f"{row['seconds']:.2f}",
                f"{row['sequences_per_second']:.2f}",
                f"{row['mfu']:.1%}",
                f"{row['bubble']:.1%}",
                f"{row['memory_bytes_per_chip'] / 2**30:.1f}",
            ]
            for row in rows
        ),
    ]
