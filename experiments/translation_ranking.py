"""The ranking of N:M recipes on translation: BLEU of a small encoder-decoder, seed by seed.

    python experiments/translation_ranking.py --pairs deu.txt.xz --out docs/results/

An encoder-decoder of 1.2 million parameters (the preset `translation`) learns English to German
from Tatoeba's pairs (manythings.org/anki, 2018-05-13: 169,813 lines), with the feed-forward kernels
of both sides at 1:16. All runs of a seed start from the same weights and see the same rows in the
same order; what is compared is BLEU on 2,798 sentences that no run learned from, by greedy search,
and the loss, both with strict masks. The preset `translation-1:4-int4` is trained too, for
`packed_translation.py`.

Hardware: one core, 12 minutes a run, two hours for all; `--seeds 0` and `--seeds 1 2` may run side
by side. A run that is stopped goes on from its checkpoint under `--work`; one whose line is in the
file is not made again. Expected (Bambhaniya et al. 2024, arXiv 2402.04744, on WMT): exponential
decay is before SR-STE.
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import journal

from gossamer.plots import Bar, bar_panels
from gossamer.recipe import Recipe
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, MdGf, Method
from gossamer.training import (
    PRESETS,
    Corpus,
    MeshConfig,
    TrainingConfig,
    read_corpus,
    task_scores,
    train,
    training_flops,
)

RECIPES: dict[str, Callable[[Recipe, int], Method | None]] = {
    "dense": lambda recipe, steps: None,
    "MdGf exponential, chain, to 70 %": lambda recipe, steps: MdGf(
        recipe=recipe, start=steps // 50, stop=steps * 7 // 10
    ),
    "SR-STE": lambda recipe, steps: SRSTE(recipe=recipe),
}
KERNELS = r"\w+\.layers\..*\.mlp\..*\.kernel"
PATTERN = NM(1, 16)
COMPARED = ("MdGf exponential, chain, to 70 %", "SR-STE")
PACKED = "translation-1:4-int4"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: str
    pattern: NM | None
    seed: int

    @property
    def key(self) -> str:
        return f"{self.recipe}, {self.pattern or 'dense'}, seed {self.seed}"

    def config(self, pairs: str) -> TrainingConfig:
        base = PRESETS[PACKED if self.recipe == PACKED else "translation"]
        changes: dict[str, Any] = {"seed": self.seed, "mesh": MeshConfig(data=1)}
        if self.recipe != PACKED:
            recipe = Recipe.of(KERNELS, pattern=self.pattern)
            changes["method"] = RECIPES[self.recipe](recipe, base.steps)
        return dataclasses.replace(base, data=base.data.at(pairs), log_every=10, **changes)


def runs(seeds: Sequence[int]) -> list[Run]:
    """Dense runs first; what is packed is trained once."""
    return [
        *(Run("dense", None, seed) for seed in seeds),
        *(Run(name, PATTERN, seed) for seed in seeds for name in COMPARED),
        *([Run(PACKED, NM(1, 4), 0)] if 0 in seeds else []),
    ]


def measure(run: Run, corpus: Corpus, pairs: str, work: pathlib.Path) -> dict[str, Any]:
    """Trains, translates, and notes what papers report."""
    begin, config = time.perf_counter(), run.config(pairs)
    trained = train(config, folder=work / run.key.replace(":", "-"), resume=True, corpus=corpus)
    seconds = time.perf_counter() - begin
    sizes = {"sequence": config.context, "batch": config.batch, "steps": config.steps}
    flops = training_flops(config.model, method=config.method, **sizes)
    return {
        "key": run.key,
        "recipe": run.recipe,
        "pattern": None if run.pattern is None else str(run.pattern),
        "seed": run.seed,
        "steps": config.steps,
        "loss": trained.evaluation,
        "accuracy": trained.accuracy,
        **task_scores(config, trained, corpus),
        "flops": flops / training_flops(config.model, **sizes),
        "seconds": seconds,
    }


HEAD = """# N:M training on translation, measured

`experiments/translation_ranking.py --pairs deu.txt.xz --out docs/results/` writes this page. An
encoder-decoder of 1.2 million parameters (the preset `translation` of `gossamer train`: {steps}
steps, twelve minutes on one core) learns English to German from Tatoeba's pairs, with the
feed-forward kernels of both sides sparse along their inputs. BLEU by greedy search on {sentences}
sentences held out (`{signature}`),
loss in nats a token, both with strict masks. Runs of a seed share first weights and batches. FLOPs
are of the whole run, over those of the dense run. `{packed}` has all kernels of the blocks
sparse, and rounds them to int4 in training.

| kernels | recipe | BLEU by seed | loss by seed | BLEU below dense | FLOPs |
| --- | --- | --- | --- | --- | --- |
"""


def report(rows: Sequence[dict[str, Any]], out: pathlib.Path) -> None:
    """Writes the page and its plot."""
    rows = sorted(rows, key=lambda row: row["seed"])
    dense = {row["seed"]: row["bleu"] for row in rows if row["recipe"] == "dense"}
    names = dict.fromkeys(map(_name, rows))
    text = HEAD.format(
        steps=rows[0]["steps"],
        sentences=rows[0]["sentences"],
        signature=rows[0]["signature"],
        packed=PACKED,
    )
    panels: dict[str, list[Bar]] = {}
    for name in sorted(names, key=lambda name: (name[0] != "dense", name[0])):
        mine = [row for row in rows if _name(row) == name]
        kernels, recipe = name
        below = [dense[row["seed"]] - row["bleu"] for row in mine if row["seed"] in dense]
        columns = (
            *(kernels, recipe, _listed(mine, "bleu", 2), _listed(mine, "loss", 3)),
            *(f"{statistics.mean(below):.2f}", f"{mine[0]['flops']:.2f}"),
        )
        text += f"| {' | '.join(columns)} |\n"
        panels.setdefault(kernels, []).extend(
            Bar(f"{recipe}, seed {row['seed']}", row["bleu"], recipe, f" {row['bleu']:.2f}")
            for row in mine
        )
    plot = bar_panels(panels, x="BLEU", title="English to German, 1.2 million parameters")
    (out / "translation.png").write_bytes(plot)
    (out / "translation.md").write_text(f"{text}\n![BLEU](translation.png)\n")


def _name(row: dict[str, Any]) -> tuple[str, str]:
    """What is sparse, and how it came to be."""
    if row["pattern"] is None:
        return "dense", "dense"
    kernels = "all of the blocks" if row["recipe"] == PACKED else "feed-forward"
    return f"{kernels}, {row['pattern']}", row["recipe"]


def _listed(rows: Sequence[dict[str, Any]], field: str, digits: int) -> str:
    return ", ".join(f"{row[field]:.{digits}f}" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", required=True, help="two columns, a tab between them")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("translation-runs"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of new runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "translation.jsonl"
    config = runs([0])[0].config(args.pairs)
    corpus = functools.cache(lambda: read_corpus(config.data))
    for run in runs(args.seeds):
        if run.key in journal.finished(file):
            continue
        journal.add(file, measure(run, corpus(), args.pairs, args.work))
    report(list(journal.finished(file).values()), args.out)


if __name__ == "__main__":
    main()
