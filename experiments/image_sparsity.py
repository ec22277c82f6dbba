"""Accuracy on images against sparsity: does it rise before it falls?

    python experiments/image_sparsity.py --images signs64.npz --out docs/results/

A vision transformer of 0.4 million parameters learns the Sign Language Digits (Mavi 2020, arXiv
2011.08927: 2059 photographs of hands, 64 x 64, halved here), with the feed-forward kernels at 2:4,
1:4, 1:8, 1:16 and 1:32, by SR-STE and by exponential decay. Held out is every fifth block of 40
neighbouring file numbers, since neighbours tend to be of one session. All runs of a seed start from
the same weights and see the same batches; accuracy is with strict masks, after the last step.

Hardware: one core, 100 seconds a run, an hour and a half for five seeds. A run whose line is in the
file is not made again. Expected (Bambhaniya et al. 2024, arXiv 2402.04744, ViT-Base on ImageNet):
accuracy is above that of dense training at 50 to 75 %, by both methods alike; from 1:16 on it is
below, and decay is before SR-STE.
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
import numpy as np

from gossamer.data import Images
from gossamer.models import ViTConfig
from gossamer.plots import Line, line_panels
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, MdGf, Method
from gossamer.training import (
    AdamW,
    ImageCorpus,
    ImagesConfig,
    MeshConfig,
    TrainingConfig,
    train,
    training_flops,
)
from gossamer.training.corpora.images import standardized

MODEL = ViTConfig(
    image_size=(32, 32),
    patch_size=(8, 8),
    channels=3,
    hidden_size=96,
    intermediate_size=384,
    num_layers=3,
    num_heads=4,
    num_classes=10,
    norm_epsilon=1e-6,
)
STEPS, BATCH = 1000, 64
PATTERNS = (NM(2, 4), NM(1, 4), NM(1, 8), NM(1, 16), NM(1, 32))
METHODS: dict[str, Callable[[Recipe], Method]] = {
    "SR-STE": lambda recipe: SRSTE(recipe=recipe),
    "MdGf exponential, chain, to 70 %": lambda recipe: MdGf(
        recipe=recipe, start=STEPS // 50, stop=STEPS * 7 // 10
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run; without a method it is dense."""

    method: str | None
    pattern: NM | None
    seed: int

    @property
    def key(self) -> str:
        return f"{self.method or 'dense'}, {self.pattern or 'dense'}, seed {self.seed}"

    @property
    def config(self) -> TrainingConfig:
        method = None
        if self.method is not None:
            rule = Rule(path=r"layers\..*\.mlp\..*\.kernel", pattern=self.pattern)
            method = METHODS[self.method](Recipe(rules=(rule,)))
        return TrainingConfig(
            model=MODEL,
            data=ImagesConfig(images="sign-language-digits"),
            steps=STEPS,
            batch=BATCH,
            optimizer=AdamW(learning_rate=1e-3, warmup=100, weight_decay=0.05),
            seed=self.seed,
            method=method,
            log_every=STEPS // 20,
            evaluation_windows=None,
            mesh=MeshConfig(data=1),
        )


def read(file: pathlib.Path) -> ImageCorpus:
    """Images at half their size, split by blocks of file numbers."""
    with np.load(file) as arrays:
        pixels, labels, numbers = arrays["x"], arrays["y"], arrays["file_number"]
    halves = pixels.reshape(len(pixels), 32, 2, 32, 2, 3).mean(axis=(2, 4)).round()
    names = tuple(str(digit) for digit in range(10))
    images = Images(halves.astype(np.uint8), labels.astype(np.int32), names, file.name)
    held_out = numbers.astype(int) // 40 % 5 == 4
    learned = images.take(np.flatnonzero(~held_out))
    return ImageCorpus(
        learned=learned,
        held_out=images.take(np.flatnonzero(held_out)),
        processing=standardized(learned),
    )


def runs(seeds: Sequence[int]) -> list[Run]:
    """Seed by seed, so that fewer seeds are whole comparisons too."""
    asked = []
    for seed in seeds:
        asked.append(Run(None, None, seed))
        asked += [Run(method, pattern, seed) for pattern in PATTERNS for method in METHODS]
    return asked


def measure(run: Run, corpus: ImageCorpus) -> dict[str, Any]:
    """Trains, and notes what the model gets right."""
    begin, config = time.perf_counter(), run.config
    trained = train(config, corpus=corpus)
    sizes = {"sequence": config.length, "batch": BATCH, "steps": STEPS}
    flops = training_flops(MODEL, method=config.method, **sizes)
    return {
        "key": run.key,
        "method": run.method or "dense",
        "pattern": str(run.pattern or "dense"),
        "seed": run.seed,
        "accuracy": trained.accuracy,
        "loss": trained.evaluation,
        "train_loss": trained.history[-1]["loss"],
        "flops": flops / training_flops(MODEL, **sizes),
        "images": len(corpus.held_out),
        "seconds": time.perf_counter() - begin,
    }


HEAD = """# Accuracy on images against sparsity, measured

`experiments/image_sparsity.py --images signs64.npz --out docs/results/` writes this page. A vision
transformer (three layers, width 96) learns the Sign Language Digits at 32 x 32 pixels, feed-forward
kernels sparse along their inputs. Accuracy on {images} images of other sessions, with strict masks;
what is above dense is the mean over seeds of the difference from dense training of the same seed,
with its standard error. FLOPs are of the whole run, over those of the dense run.

| kernels | method | accuracy by seed | mean | above dense | cross-entropy above dense | FLOPs |
| --- | --- | --- | --- | --- | --- | --- |
"""


def report(rows: Sequence[dict[str, Any]], out: pathlib.Path) -> None:
    """Writes the page and its plot."""
    dense = {row["seed"]: row for row in rows if row["method"] == "dense"}
    text = HEAD.format(images=rows[0]["images"])
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    for pattern in ("dense", *map(str, PATTERNS)):
        for method in ("dense", *METHODS):
            mine = [row for row in rows if (row["pattern"], row["method"]) == (pattern, method)]
            if not mine:
                continue
            mine = sorted(mine, key=lambda row: row["seed"])
            values = [row["accuracy"] for row in mine]
            gains, losses = (
                [row[field] - dense[row["seed"]][field] for row in mine]
                for field in ("accuracy", "loss")
            )
            above = "" if method == "dense" else f"{_mean(gains, '+.2%')} | {_mean(losses, '+.3f')}"
            text += (
                f"| {pattern} | {method} | {', '.join(f'{value:.1%}' for value in values)} | "
                f"{statistics.mean(values):.2%} | {above or ' | '} | {mine[0]['flops']:.2f} |\n"
            )
            if method != "dense":
                zeros = 1 - int(pattern.split(":")[0]) / int(pattern.split(":")[1])
                lines[method].append((100 * zeros, 100 * statistics.mean(gains)))
    level = [(0.0, 0.0), (100.0, 0.0)]
    drawn = [Line("dense", level, 0)]
    drawn += [Line(name, points, place) for place, (name, points) in enumerate(lines.items(), 1)]
    title = "Sign Language Digits, feed-forward kernels sparse"
    plot = line_panels(
        {"accuracy above dense, points": drawn}, x="zeros, %", y="points", title=title
    )
    (out / "image-sparsity.png").write_bytes(plot)
    (out / "image-sparsity.md").write_text(f"{text}\n![Accuracy above dense](image-sparsity.png)\n")


def _mean(values: Sequence[float], digits: str) -> str:
    """The mean with its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{digits}} ± {error:{digits.removeprefix('+')}}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=pathlib.Path, required=True, help="signs64.npz")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="of new runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "image-sparsity.jsonl"
    corpus = functools.cache(lambda: read(args.images))
    for run in runs(args.seeds):
        if run.key in journal.finished(file):
            continue
        journal.add(file, measure(run, corpus()))
    report(list(journal.finished(file).values()), args.out)


if __name__ == "__main__":
    main()
