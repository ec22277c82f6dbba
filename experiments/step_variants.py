"""Where STEP's claim shows: its variants against SR-STE, both under Adam, seed by seed.

    python experiments/step_variants.py --out docs/results/

STEP (Lu et al. 2023, arXiv 2302.01172) says that masked gradients spoil Adam's second moment, and
freezes it before masks begin. What the paper leaves open is tried on the model and the data of
`nm_ranking.py`, feed-forward kernels at 2:4 and at 1:16:

- frozen for the masked weights alone, as a re-implementation has it; or for all parameters;
- straight-through gradients after the switch; or SR-STE's decay of pruned weights too;
- from scratch; or 1000 steps of fine-tuning, from a dense model of the same seed, for both methods.

What is compared is the loss on held-out text with strict masks, in nats a byte. The runs of STEP
and SR-STE from scratch are those of `nm_ranking.py`, whose file must be in `--out`.

Hardware: one core, about 70 seconds a run and half of it for fine-tuning, 40 minutes for all. A
run whose line is in the file is not made again. Expected by the paper: STEP below SR-STE.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import journal
import nm_ranking
import numpy as np

from gossamer.parameters import leaves_by_path, parameter_paths, replace_leaves
from gossamer.plots import Bar, bar_panels
from gossamer.recipe import Recipe
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, STEP, Method
from gossamer.training import AdamW, Corpus, DataConfig, TrainingConfig, read_corpus, train

FINE_TUNING = 1000  # steps
PATTERNS = (NM(2, 4), NM(1, 16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenForAll(STEP):
    """STEP that freezes the second moments of all parameters."""

    def extra(self, state: Any, params: Any) -> dict[str, Any]:
        frozen = state.memory.switched_at >= 0
        return {"freeze": dict.fromkeys(parameter_paths(params), frozen)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecayedSTEP(STEP):
    """STEP whose pruned weights decay as SR-STE's do."""

    decay: float = SRSTE.__dataclass_fields__["decay"].default

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        grads, state = super().update(grads, state, params)
        steps, weights = leaves_by_path(grads), leaves_by_path(params)
        pulled = {
            path: steps[path]
            + self.decay * jnp.where(mask.keep(weights[path].shape), 0, weights[path])
            for path, mask in state.masks.items()
        }
        return replace_leaves(grads, pulled), state


def switching(kind: type[STEP]) -> Callable[[Recipe, int], Method]:
    """With the paper's bounds: 10 % and 50 % of the run."""
    return lambda recipe, steps: kind(recipe=recipe, earliest=steps // 10, latest=steps // 2)


METHODS: dict[str, Callable[[Recipe, int], Method]] = {
    "SR-STE": lambda recipe, steps: SRSTE(recipe=recipe),
    "STEP": switching(STEP),
    "STEP, frozen for all": switching(FrozenForAll),
    "STEP, pruned weights decay": switching(DecayedSTEP),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run."""

    method: str
    pattern: NM
    seed: int
    fine_tuned: bool = False

    @property
    def key(self) -> str:
        start = "from dense" if self.fine_tuned else "from scratch"
        return f"{self.method}, {start}, {self.pattern}, seed {self.seed}"

    @property
    def config(self) -> TrainingConfig:
        base = nm_ranking.Run("dense", self.pattern, self.seed).config
        steps = FINE_TUNING if self.fine_tuned else base.steps
        recipe = nm_ranking.Run("SR-STE", self.pattern, self.seed).method.recipe
        method = METHODS[self.method](recipe, steps)
        config = dataclasses.replace(base, method=method, steps=steps)
        if self.fine_tuned:
            optimizer = AdamW(learning_rate=1e-3, warmup=50, weight_decay=0.01)
            config = dataclasses.replace(config, optimizer=optimizer)
        return config


def runs(seeds: Sequence[int]) -> list[Run]:
    """Variants from scratch, then both methods from a dense model."""
    variants = [name for name in METHODS if name not in ("SR-STE", "STEP")]
    asked = [
        Run(name, pattern, seed) for pattern in PATTERNS for name in variants for seed in seeds
    ]
    asked += [Run("STEP", NM(1, 16), seed) for seed in seeds]
    return asked + [
        Run(name, pattern, seed, fine_tuned=True)
        for seed in seeds
        for pattern in PATTERNS
        for name in METHODS
    ]


def dense_weights(seed: int, corpus: Corpus, work: pathlib.Path) -> dict[str, np.ndarray]:
    """A model trained dense, which all that fine-tunes this seed begins with."""
    file = work / f"dense-{seed}.npz"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        trained = train(nm_ranking.Run("dense", NM(2, 4), seed).config, corpus=corpus)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **{path: np.asarray(value) for path, value in trained.params.items()})
        partial.rename(file)
    with np.load(file) as arrays:
        return dict(arrays)


def measure(run: Run, corpus: Corpus, work: pathlib.Path) -> dict[str, Any]:
    """Trains, and notes the loss and when masks began."""
    params = dense_weights(run.seed, corpus, work) if run.fine_tuned else None
    begin = time.perf_counter()
    trained = train(run.config, corpus=corpus, params=params)
    row = {
        "key": run.key,
        "method": run.method,
        "pattern": str(run.pattern),
        "seed": run.seed,
        "fine_tuned": run.fine_tuned,
        "steps": run.config.steps,
        "loss": trained.evaluation,
        "seconds": time.perf_counter() - begin,
    }
    method = run.config.method
    if isinstance(method, STEP):
        memory = method.find(trained.state.optimizer).memory
        row |= {"switched_at": int(memory.switched_at), "settled": bool(memory.settled)}
    return row


def of_the_ranking(file: pathlib.Path) -> list[dict[str, Any]]:
    """The runs from scratch that `nm_ranking.py` has made, as rows of ours."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        {"method": row["recipe"], "fine_tuned": False, **row}
        for row in rows
        if row["recipe"] in ("SR-STE", "STEP", "dense")
        and (row["steps"], row["loss_scale"], row["activation"]) == (nm_ranking.STEPS, None, "relu")
    ]


HEAD = f"""# STEP and SR-STE under Adam, measured

`experiments/step_variants.py --out docs/results/` writes this page: the model, the data and the
runs of STEP and SR-STE from scratch are those of [the N:M ranking](nm-training.md), loss in nats a
byte on held-out text with strict masks. STEP (Lu et al. 2023, arXiv 2302.01172) freezes Adam's
second moment before masks begin; the variants are what the paper leaves open. Fine-tuning takes
{FINE_TUNING} steps from the dense model of the same seed, with a quarter of its learning rate.
"Below SR-STE" is SR-STE's loss less the method's own, seed by seed: the paper's claim is that it is
positive. The last column says at which step masks began, by AutoSwitch's test or at the latest step
allowed.
"""


def report(rows: Sequence[dict[str, Any]], out: pathlib.Path) -> None:
    """Writes the page and its plot."""
    text, panels = HEAD, {}
    dense = {row["seed"]: row["loss"] for row in rows if row["method"] == "dense"}
    for fine_tuned, pattern in itertools.product((False, True), map(str, PATTERNS)):
        mine = [
            row
            for row in rows
            if (row["fine_tuned"], row["pattern"]) == (fine_tuned, pattern)
            and row["method"] in METHODS
        ]
        name = f"{pattern}, " + (
            f"{FINE_TUNING} steps from dense" if fine_tuned else "from scratch"
        )
        text += f"\n## {name}\n\n| method | losses by seed | below SR-STE | masks began |\n"
        text += "| --- | --- | --- | --- |\n" + "".join(_lines(mine))
        panels[name] = [
            Bar(f"{row['method']}, seed {row['seed']}", gap, row["method"], f" {gap:+.4f}")
            for method in METHODS
            for row in sorted(mine, key=lambda row: row["seed"])
            if row["method"] == method
            for gap in [row["loss"] - dense[row["seed"]]]
        ]
    title = "Loss above dense training of the same seed"
    (out / "step-variants.png").write_bytes(bar_panels(panels, x="nats a byte", title=title))
    (out / "step-variants.md").write_text(f"{text}\n![Losses above dense](step-variants.png)\n")


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    by_method = {
        name: {row["seed"]: row for row in rows if row["method"] == name} for name in METHODS
    }
    lines = []
    for name, found in by_method.items():
        if not found:
            continue
        losses = ", ".join(f"{found[seed]['loss']:.4f}" for seed in sorted(found))
        shared = sorted(found.keys() & by_method["SR-STE"].keys())
        gains = [by_method["SR-STE"][seed]["loss"] - found[seed]["loss"] for seed in shared]
        below = "" if name == "SR-STE" else ", ".join(f"{gain:+.4f}" for gain in gains)
        if below and len(gains) > 1:
            below += f" (mean {statistics.mean(gains):+.4f})"
        began = {
            (row["switched_at"], "test" if row["settled"] else "latest")
            for row in found.values()
            if "switched_at" in row
        }
        masks = ", ".join(f"{step}, {why}" for step, why in sorted(began))
        lines.append(f"| {name} | {losses} | {below} | {masks} |\n")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("step-runs"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of new runs")
    args = parser.parse_args()
    file = args.out / "step-variants.jsonl"
    corpus = functools.cache(lambda: read_corpus(DataConfig()))
    for run in runs(args.seeds):
        if run.key in journal.finished(file):
            continue
        journal.add(file, measure(run, corpus(), args.work))
    rows = [*of_the_ranking(args.out / "nm-training.jsonl"), *journal.finished(file).values()]
    report(rows, args.out)


if __name__ == "__main__":
    main()
