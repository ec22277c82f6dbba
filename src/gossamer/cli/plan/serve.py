"""`gossamer plan serve`: the best slices, layouts, batches and numerics to serve a model."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gossamer.cli.console import Console, WrongUseError, aligned, arguments
from gossamer.cli.plan.energy import EnergyOptions
from gossamer.cli.plan.model import ModelCommand, chosen_weights

if TYPE_CHECKING:
    from gossamer.planning import Chip, ModelShape, ServePlan, ServeSearch, Weights
    from gossamer.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve(ModelCommand, EnergyOptions):
    """How to serve a model: the slices, layouts, batches and weights of which none is better both
    in latency and in chip-milliseconds a token, which are the chips for 1,000 tokens a second.

    Example: gossamer plan serve palm-540b --chips tpu-v4 --latency-ms 50 --context 2048
    --weights bf16 --recipe int8 --recipe 2:4-int4 --plot front.png
    """

    model: tyro.conf.Positional[str]
    """A model that is known, such as palm-540b, llama-2-70b or opt-66b; a config.json; or a model
    as `gossamer compress` takes it."""
    chip: Annotated[str, tyro.conf.arg(name="chips")]
    """Of which kind: tpu-v3, tpu-v4, tpu-v5e, tpu-v5p, tpu-v6e, a100-80gb, h100-sxm, cpu, or one
    of --chip-file."""
    max_chips: int = 256
    """Of the largest slice."""
    context: int
    """Tokens of each sequence, those of the pass included."""
    phase: Literal["prefill", "decode"] = "decode"
    """A prefill of prompts, or a step of decoding: one token of each sequence."""
    tokens: int | None = None
    """New tokens of each sequence. Without it, 1 in decoding and the whole context in prefill."""
    latency_ms: float | None = None
    """That a pass may take: in decoding, until the next token."""
    batch: tuple[int, ...] = ()
    """Sequences; may be given several times. Without it, 1 to 1024 in two steps a doubling."""
    layout: tuple[Literal["ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz"], ...] = ()
    """Of weights; may be given several times. Without it, all of them."""
    weights: tuple[Literal["bf16", "int8", "int4"], ...] = ()
    """Bits of each weight and nothing else; may be given several times. Without any and --recipe,
    those of a compressed model, else bf16."""
    recipe: tuple[str, ...] = ()
    """A preset or a recipe file, whose weights take the bytes that they would take on disk; may be
    given several times."""
    cache: tuple[Literal["bf16", "int8"], ...] = ("bf16",)
    """Keys and values; may be given several times."""
    plot: Path | None = None
    """PNG file for the front of each kind of weights."""

    def run(self, console: Console) -> dict[str, Any]:
        """Searches; see `gossamer.planning.search_serving`."""
        from gossamer.planning import best_of

        chip = self.found_chip()
        if self.latency_ms is not None and not self.latency_ms > 0:
            raise WrongUseError(f"--latency-ms needs to be above 0, got {self.latency_ms:g}.")
        shape, own = self.found_model(self.model)
        found, faults = self._search(shape, chip, self._numerics(own))
        if self.plot is not None:
            self.plot.write_bytes(self._plot(shape, chip, found))
        return {
            "model": shape.name,
            "chip": chip.name,
            "phase": self.phase,
            "context": self.context,
            "latency_ms": self.latency_ms,
            "considered": sum(each.considered for each in found.values()),
            "front": [self._plain(chip, p) for p in best_of(s.front for s in found.values())],
            "weights": self._by_weights(chip, found),
            "impossible": faults,
            "plot": None if self.plot is None else str(self.plot),
        }

    def _numerics(self, own: "Recipe | None") -> "Iterator[Weights]":
        """What is given, else the model's own recipe or bf16."""
        for bits in self.weights:
            yield chosen_weights(bits, None)
        for recipe in self.recipe:
            yield chosen_weights(None, recipe)
        if not self.weights and not self.recipe:
            yield chosen_weights(None, None, own)

    def _search(
        self, shape: "ModelShape", chip: "Chip", weights: "Iterable[Weights]"
    ) -> "tuple[dict[str, ServeSearch], dict[str, str]]":
        """What each kind of weights gives, and why others give nothing."""
        from gossamer.planning import BATCHES, LAYOUTS, meshes_of, search_serving

        with arguments():
            meshes = meshes_of(chip, self.max_chips)
        found, faults = {}, {}
        for each in dict.fromkeys(weights):
            name = each if isinstance(each, str) else each.name
            try:
                found[name] = search_serving(
                    shape,
                    chip,
                    phase=self.phase,
                    context=self.context,
                    tokens=self.tokens,
                    meshes=meshes,
                    batches=self.batch or BATCHES,
                    layouts=self.layout or LAYOUTS,
                    weights=[each],
                    caches=self.cache,
                    max_seconds=None if self.latency_ms is None else self.latency_ms / 1e3,
                )
            except ValueError as error:
                faults[name] = str(error)
        if not found:
            raise WrongUseError(next(iter(faults.values())))
        return found, faults

    def _by_weights(self, chip: "Chip", found: "dict[str, ServeSearch]") -> dict[str, Any]:
        """Each kind's front, its smallest slice, and the chips that it saves against the first."""
        first = next(iter(found.values())).front[-1].cost.chip_ms_per_token
        return {
            name: {
                "front": [self._plain(chip, plan) for plan in each.front],
                "smallest": self._plain(chip, each.smallest),
                "chips_for_1000_tokens_per_second": each.front[-1].cost.chip_ms_per_token,
                "chips_saved": 1 - each.front[-1].cost.chip_ms_per_token / first,
                "considered": each.considered,
                "left_out": dict(each.left_out),
            }
            for name, each in found.items()
        }

    def _plot(self, shape: "ModelShape", chip: "Chip", found: "dict[str, ServeSearch]") -> bytes:
        from gossamer.planning import serving_plot

        title = f"{shape.name} on {chip.name}, {self.phase} at {self.context} tokens"
        fronts = {name: each.front for name, each in found.items()}
        return serving_plot(fronts, title=title)

    def _plain(self, chip: "Chip", plan: "ServePlan") -> dict[str, Any]:
        return {
            "chips": plan.mesh.chips,
            "mesh": str(plan.mesh),
            "layout": plan.layout,
            "attention": plan.attention,
            "batch": plan.batch,
            "weights": plan.weights,
            "cache": plan.cache,
            **dataclasses.asdict(plan.cost),
            **self.per_token(chip, float(plan.cost.chip_ms_per_token) / 1e3),
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The front, and the smallest slice of each kind of weights."""
        header = ["slice", "layout", "attention", "weights", "cache", "batch"]
        header += ["ms", "chip-ms a token", "MFU", "GiB a chip", "J a token"]
        for line in aligned([header, *map(_row, result["front"])], words=5):
            console.out.print(line)
        limit = "" if self.latency_ms is None else f" within {self.latency_ms:g} ms"
        header = ["weights", f"smallest slice{limit}", "layout", "batch", "ms"]
        header += ["chips for 1,000 tokens/s", "saved"]
        rows = [
            [
                name,
                *(str(each["smallest"][key]) for key in ("mesh", "layout", "batch")),
                f"{1e3 * each['smallest']['seconds']:.1f}",
                f"{each['chips_for_1000_tokens_per_second']:.3g}",
                f"{each['chips_saved']:.0%}",
            ]
            for name, each in result["weights"].items()
        ]
        console.out.print()
        for line in aligned([header, *rows], words=3):
            console.out.print(line)
        for fault in result["impossible"].values():
            console.note(fault)
        console.out.print(f"{result['considered']:,} plans considered")
        if result["plot"]:
            console.out.print(f"fronts: {result['plot']}")


def _row(plan: dict[str, Any]) -> list[str]:
    joules = plan["joules_per_token"]
    return [
        *(plan[name] for name in ("mesh", "layout", "attention", "weights", "cache")),
        str(plan["batch"]),
        f"{1e3 * plan['seconds']:.1f}",
        f"{plan['chip_ms_per_token']:.3g}",
        f"{plan['mfu']:.1%}",
        f"{plan['memory_bytes_per_chip'] / 2**30:.1f}",
        "-" if joules is None else f"{joules:.3g}",
    ]
