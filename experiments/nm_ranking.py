"""Which way of training N:M sparse weights is best: the published ranking, seed by seed.

    python experiments/nm_ranking.py --out docs/results/

A byte-level language model (OPT's architecture, two layers, width 64) learns Python's own standard
library with the feed-forward kernels at 1:16, by every recipe, and at 2:4 by those that compete
there. All recipes of a seed start from the same weights and see the same batches; what is compared
is the loss on held-out text with strict masks, in nats a byte. Then SR-STE gets as many steps as
equal the FLOPs of the best decay, and AutoSwitch sees gradients 1, 30 and 1000 times as large.
OPT has ReLU; some recipes are run with GELU as well, which the published model has.

Hardware: one core, about 70 seconds a run, two hours for all; `--seeds 0` and `--seeds 1 2` may run
side by side. A run whose line is in the file is not made again. Expected (Bambhaniya et al. 2024):
at 1:16 exponential decay beats SR-STE, which beats STE; at 2:4 they are level.
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import journal
import nm_ranking_report

from gossamer.models import OptConfig
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Periodic
from gossamer.sparsity.methods import ASP, SRSTE, STE, STEP, MaskDecay, MdGf, Method, SdGf
from gossamer.training import AdamW, Corpus, DataConfig, TrainingConfig, read_corpus, train
from gossamer.training.flops import steps_within, training_flops

STEPS, CONTEXT, BATCH = 2500, 32, 32
MODEL = OptConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=256,
    num_layers=2,
    num_heads=4,
    max_positions=CONTEXT,
)
SPARSE, HALF = NM(1, 16), NM(2, 4)
POINTS = 50  # of the curves that a run keeps


@dataclasses.dataclass(frozen=True, kw_only=True)
class LouderSTEP(STEP):
    """STEP on a loss that is multiplied by a number."""

    loss_scale: float

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        louder = jax.tree.map(lambda grad: grad * self.loss_scale, grads)
        return super().update(louder, state, params)


def flow(kind: type[MdGf | SdGf], end: float, **fields: Any) -> Callable[..., Method]:
    """A recipe that is dense for 2 % of the steps and strictly sparse from the share `end` on."""
    return lambda recipe, steps: kind(
        recipe=recipe, start=steps // 50, stop=int(end * steps), **fields
    )


RECIPES: dict[str, Callable[[Recipe, int], Method | None]] = {
    "dense": lambda recipe, steps: None,
    "MdGf exponential, chain, to 50 %": flow(MdGf, 0.5),
    "MdGf exponential, chain, to 70 %": flow(MdGf, 0.7),
    "MdGf exponential, open": flow(MdGf, 0.7, gradient="open"),
    "MdGf linear, chain, to 50 %": flow(MdGf, 0.5, decay="linear"),
    "MdGf linear, chain, to 70 %": flow(MdGf, 0.7, decay="linear"),
    "MdGf linear, open": flow(MdGf, 0.7, decay="linear", gradient="open"),
    "SdGf stepwise, chain": flow(SdGf, 0.7),
    "SdGf stepwise, open": flow(SdGf, 0.7, gradient="open"),
    "SdGf geometric, chain": flow(SdGf, 0.7, frames="geometric", largest=4),
    "SR-STE": lambda recipe, steps: SRSTE(recipe=recipe),
    "SR-STE, decay 1e-2": lambda recipe, steps: SRSTE(recipe=recipe, decay=1e-2),
    "SR-STE after 2 % dense": lambda recipe, steps: SRSTE(
        recipe=recipe, schedule=Periodic(start=steps // 50)
    ),
    "STE": lambda recipe, steps: STE(recipe=recipe),
    "masked gradient": lambda recipe, steps: MaskDecay(recipe=recipe, weight=0.0),
    "STEP": lambda recipe, steps: STEP(recipe=recipe, earliest=steps // 10, latest=steps // 2),
    "ASP": lambda recipe, steps: ASP(recipe=recipe, at=steps // 2),
}
CHECKED = (
    *("dense", "MdGf exponential, chain, to 70 %", "MdGf exponential, open", "SR-STE", "STE"),
    *("MdGf linear, chain, to 50 %", "MdGf linear, chain, to 70 %", "SR-STE after 2 % dense"),
)
WITH_GELU = {
    SPARSE: (
        *("dense", "MdGf exponential, chain, to 70 %", "SR-STE", "STE"),
        "SR-STE after 2 % dense",
    ),
    HALF: ("MdGf exponential, chain, to 70 %", "SR-STE"),
}
AT_HALF = ("MdGf exponential, chain, to 70 %", "SR-STE", "STE", "STEP")
LOUDNESS = (1, 30, 1000)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: str
    pattern: NM
    seed: int
    steps: int = STEPS
    loss_scale: int | None = None
    activation: Literal["relu", "gelu"] = "relu"

    @property
    def key(self) -> str:
        more = "" if self.loss_scale is None else f", loss x {self.loss_scale}"
        more += "" if self.activation == "relu" else f", {self.activation}"
        return f"{self.recipe}, {self.pattern}, {self.steps} steps, seed {self.seed}{more}"

    @property
    def config(self) -> TrainingConfig:
        method = self.method
        optimizer = AdamW(learning_rate=4e-3, warmup=100, weight_decay=0.01)
        if self.loss_scale is not None:
            assert isinstance(method, STEP)
            fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
            method = LouderSTEP(**fields, loss_scale=self.loss_scale)
            optimizer = dataclasses.replace(optimizer, clip=None)
        return TrainingConfig(
            model=dataclasses.replace(MODEL, activation=self.activation),
            steps=self.steps,
            batch=BATCH,
            context=CONTEXT,
            optimizer=optimizer,
            seed=self.seed,
            method=method,
            log_every=self.steps // 500,
            evaluation_windows=4096,
        )

    @property
    def method(self) -> Method | None:
        rule = Rule(path=r"layers\..*\.mlp\..*\.kernel", pattern=self.pattern)
        return RECIPES[self.recipe](Recipe(rules=(rule,)), self.steps)

    def flops(self, *, transposable: bool = True) -> float:
        """Of the whole run; the gradient of the input may gain by zeros or not."""
        return training_flops(
            MODEL,
            sequence=CONTEXT,
            batch=BATCH,
            steps=self.steps,
            method=self.method,
            transposable=transposable,
        )


def equal_flops_steps() -> int:
    """How many steps of SR-STE cost what the exponential decay does."""
    decay = Run("MdGf exponential, chain, to 70 %", SPARSE, 0)
    return steps_within(decay.flops(), lambda steps: Run("SR-STE", SPARSE, 0, steps).flops())


def runs(seeds: Sequence[int]) -> list[Run]:
    """All runs, those first that the checks ask for; AutoSwitch's are of the first seed alone."""
    longer = equal_flops_steps()
    asked = [
        run
        for seed in seeds
        for run in (
            *(Run(name, SPARSE, seed) for name in CHECKED),
            *(Run(name, HALF, seed) for name in AT_HALF),
            Run("SR-STE", SPARSE, seed, longer),
        )
    ]
    asked += [Run("STEP", SPARSE, 0, loss_scale=scale) for scale in LOUDNESS if 0 in seeds]
    asked += [
        Run(name, pattern, seed, activation="gelu")
        for seed in seeds
        for pattern, names in WITH_GELU.items()
        for name in names
    ]
    rest = [Run(name, SPARSE, seed) for name in RECIPES if name not in CHECKED for seed in seeds]
    return asked + rest


def measure(run: Run, corpus: Corpus) -> dict[str, Any]:
    """Trains, and notes the loss, what masks and gradients did, and the FLOPs."""
    begin = time.perf_counter()
    trained = train(run.config, corpus=corpus)
    row = {
        "key": run.key,
        "recipe": run.recipe,
        "pattern": str(run.pattern),
        "seed": run.seed,
        "steps": run.steps,
        "loss_scale": run.loss_scale,
        "activation": run.activation,
        "loss": trained.evaluation,
        "seconds": time.perf_counter() - begin,
    }
    dense = Run("dense", run.pattern, run.seed)
    for name, transposable in (("flops", True), ("flops_dense_input_gradient", False)):
        cost = run.flops(transposable=transposable)
        row[name] = cost / dense.flops()
    method = run.config.method  # with its louder loss
    if method is not None:
        row |= behaviour(trained.history, run.steps)
        memory = method.find(trained.state.optimizer).memory
        if isinstance(method, STEP):
            row |= {"switched_at": int(memory.switched_at), "settled": bool(memory.settled)}
    return row


def behaviour(history: list[dict[str, int | float]], steps: int) -> dict[str, Any]:
    """Medians of gradient variance and flips in the middle of a run and at its end, and curves."""

    def median(name: str, low: float, high: float) -> float:
        return statistics.median(
            line[name] for line in history if low * steps < line["step"] <= high * steps
        )

    chunk = len(history) // POINTS
    chunks = [history[place : place + chunk] for place in range(0, len(history), chunk)]
    return {
        "variance": median("gradient_variance", 0.2, 0.7),
        "flips": median("flips", 0.2, 0.7),
        "last_flips": statistics.mean(
            line["flips"] for line in history if line["step"] > 0.8 * steps
        ),
        "curves": {
            name: [
                (some[-1]["step"], statistics.mean(line[name] for line in some)) for some in chunks
            ]
            for name in ("gradient_variance", "flips")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of new runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "nm-training.jsonl"
    corpus = functools.cache(lambda: read_corpus(DataConfig()))
    for run in runs(args.seeds):
        if run.key in journal.finished(file):
            continue
        journal.add(file, measure(run, corpus()))
    rows: Mapping[str, dict[str, Any]] = journal.finished(file)
    nm_ranking_report.write(list(rows.values()), args.out)


if __name__ == "__main__":
    main()
