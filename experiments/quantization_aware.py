"""Training in few bits against training in float32, paired by seed: which widths lose.

    python experiments/quantization_aware.py TEXT --out docs/results/ --seeds 5

A Llama of 0.13 M parameters learns to predict the bytes of a text; its last tenth is held back.
It is small enough for its size to limit it, which one of 0.5 M parameters after 500 steps is not.
Every setting starts from the same weights and sees the same batches as float32 with the same seed;
what is compared is the loss on the text held back, in bits per byte. Intervals are Student's at
95 %, of the differences of pairs. Quantized are all kernels of the blocks and the output; a run
whose line is in the file already is not made again.

Hardware: one core, about a minute a run. Expected (Abdolrashidi et al., Ding et al. and Rybakov et
al., on other models): W8A8 as float32, W4A8 within 1 %, int2 and 1:4 alone visibly worse.
"""

import argparse
import json
import lzma
import math
import pathlib
import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gossamer.models import Llama, LlamaConfig
from gossamer.plots import Bar, bar_panels
from gossamer.quantization import Int, QuantizedGradients, StraightThrough
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.training import quantize_aware

CONTEXT, BATCH, LEARNING_RATE = 32, 32, 4e-3
CONFIG = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=176,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    max_positions=CONTEXT,
)
BLOCKS, OUTPUT = r"layers\..*\.kernel", r"output\.kernel"


def recipe(**block) -> Recipe:
    """Blocks as told, the output in int8 where anything is quantized."""
    rules = [Rule(path=BLOCKS, **block)]
    if "weights" in block:
        rules.append(Rule(path=OUTPUT, weights=Int(8), activations=block.get("activations")))
    return Recipe(rules=tuple(rules))


A8 = {"activations": Int(8)}
SETTINGS: dict[str, dict | None] = {
    "float32": None,
    "W8A8": {"recipe": recipe(weights=Int(8), **A8)},
    "W8A8, int8 gradients": {
        "recipe": recipe(weights=Int(8), **A8),
        "backward": QuantizedGradients(),
    },
    "W4A8": {"recipe": recipe(weights=Int(4), **A8)},
    "W2A8": {"recipe": recipe(weights=Int(2), **A8)},
    "2:4": {"recipe": recipe(pattern=NM(2, 4))},
    "1:4": {"recipe": recipe(pattern=NM(1, 4))},
    "2:4, W4A8": {"recipe": recipe(pattern=NM(2, 4), weights=Int(4), **A8)},
}


def read_bytes(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The text's bytes, to learn and held back."""
    data = path.read_bytes()
    data = lzma.decompress(data) if path.suffix == ".xz" else data
    tokens = np.frombuffer(data, np.uint8).astype(np.int32)
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:]


def run(setting: dict | None, seed: int, steps: int, text: tuple[np.ndarray, np.ndarray]) -> dict:
    """Trains one model, and measures it on the text held back."""
    graph, params = nnx.split(Llama(CONFIG, nnx.Rngs(seed)))
    schedule = optax.warmup_cosine_decay_schedule(0, LEARNING_RATE, steps // 20 + 1, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01)
    )

    def loss(params, tokens, key):
        if setting is not None:
            params = quantize_aware(params, **{"backward": StraightThrough(), **setting}, key=key)
        logits = nnx.merge(graph, params)(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    @jax.jit
    def step(params, moments, tokens, key):
        gradients = jax.grad(loss)(params, tokens, key)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    moments, random, start = optimizer.init(params), np.random.default_rng(seed), time.time()
    for number in range(steps):
        places = random.integers(0, len(text[0]) - CONTEXT - 1, BATCH)
        tokens = np.stack([text[0][place : place + CONTEXT + 1] for place in places])
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, moments = step(params, moments, jnp.asarray(tokens), key)
    windows = text[1][: len(text[1]) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    evaluate = jax.jit(loss)
    rest = [windows[i : i + 64] for i in range(0, len(windows) // 64 * 64, 64)]
    losses = [float(evaluate(params, jnp.asarray(some), jax.random.key(0))) for some in rest]
    bits = statistics.mean(losses) / math.log(2)
    return {"bits_per_byte": bits, "seconds": time.time() - start}


def finished(file: pathlib.Path) -> dict[tuple[str, int], dict]:
    """The runs whose lines are there."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["setting"], row["seed"]): row for row in rows}


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half of the width of Student's 95 % interval."""
    # Quantiles 0.975 of Student's distribution with 1, 2, ... degrees of freedom.
    quantiles = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences), quantiles[len(differences) - 2] * spread


def summary(rows: dict[tuple[str, int], dict], seeds: int) -> Iterator[dict]:
    """For every setting with all its seeds: the loss, and how it differs from float32's in %."""
    for name in SETTINGS:
        if not all((name, seed) in rows for seed in range(seeds)):
            continue
        bits = [rows[name, seed]["bits_per_byte"] for seed in range(seeds)]
        base = [rows["float32", seed]["bits_per_byte"] for seed in range(seeds)]
        change = [100 * (mine / its - 1) for mine, its in zip(bits, base, strict=True)]
        mean, half = interval(change) if name != "float32" else (0.0, 0.0)
        yield {
            "setting": name,
            "bits_per_byte": statistics.mean(bits),
            "change_percent": mean,
            "half_interval_percent": half,
        }


def keep(rows: list[dict], args: argparse.Namespace) -> None:
    """Writes the figures and a plot of the changes."""
    facts = {"text": args.text.name, "steps": args.steps, "seeds": args.seeds, "rows": rows}
    (args.out / "quantization-aware.json").write_text(json.dumps(facts, indent=1) + "\n")
    bars = [
        Bar(
            row["setting"],
            row["bits_per_byte"],
            "bits per byte",
            f"{row['bits_per_byte']:.3f}; {row['change_percent']:+.2f} % "
            f"± {row['half_interval_percent']:.2f}",
        )
        for row in rows
    ]
    title = f"{args.text.name}, {args.seeds} seeds: change from float32, 95 %"
    plot = bar_panels({"": bars}, x="bits per byte on text held back", title=title)
    (args.out / "quantization-aware.png").write_bytes(plot)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=pathlib.Path, help="a text, plain or .xz")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 12), metavar="2..11")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    text, file = read_bytes(args.text), args.out / "quantization-aware-runs.jsonl"
    rows = finished(file)
    for seed in range(args.seeds):
        for name in args.settings:
            if (name, seed) in rows:
                continue
            row = {"setting": name, "seed": seed, "steps": args.steps}
            row |= run(SETTINGS[name], seed, args.steps, text)
            rows[name, seed] = row
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    done = list(summary(rows, args.seeds))
    keep(done, args)
    for row in done:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
