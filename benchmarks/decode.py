"""Decoding and prefill of whole models against llama.cpp, speed and perplexity on one row.

    gossamer compress smollm2 --recipe 2:4-int4 --calibration text.xz --out small
    python benchmarks/decode.py --models small int4 --text wiki.test.raw.xz --out docs/results/

Greedy decoding of 128 tokens after a prompt of 64, and prefill of 512, taken in turns with
llama.cpp on its own Q4_0 requantization of the weights that `smollm2` has (through its low-level
calls, arg-max outside); the least time of each is kept. Every model is run with int8 and with float
activations, and its perplexity is measured with the same. Models to compare are those compressed
from `smollm2`; without any, two that need no calibration are made. `--shape 1.1b` takes random
weights of that shape in place of a model, which have no perplexity. The bound is the bytes that a
step must read, over the speed at which this machine reads memory, measured in the same run.

The number of threads is that of the processors this process may use: `taskset -c 0` makes it one.
Needs `pip install llama-cpp-python gguf`. The last line is JSON.
"""

import argparse
import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
from llama_cpp_peer import LlamaCpp, requantize, write_random
from products import Case, random_packed
from race import let_others_sleep
from results import THREADS, arguments, keep

import gossamer
from gossamer.data import builtin_text, read_text, windows
from gossamer.evaluation import perplexity
from gossamer.inference import Sampling
from gossamer.inference.draw import Clock, draw
from gossamer.inference.runner import Runner
from gossamer.kernels.bandwidth import read_gb_per_second
from gossamer.loading import Checkpoint
from gossamer.loading.checkpoint import Tensor
from gossamer.loading.smollm2 import smollm2_path
from gossamer.models import LlamaConfig, parameter_shapes
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.sparsity import NM

PROMPT, NEW, LONG = 64, 128, 512

SHAPES = {
    "1.1b": LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        head_dim=64,
        max_positions=2048,
    )
}


@dataclasses.dataclass
class Seconds:
    """The least that was seen."""

    token: float = float("inf")
    prefill: float = float("inf")

    def take(self, token: float, prefill: float) -> None:
        """Keeps what is less."""
        self.token = min(self.token, token)
        self.prefill = min(self.prefill, prefill)


def random_checkpoint(config: LlamaConfig, pattern: NM | None) -> Checkpoint:
    """Random int4 kernels, the same in every layer but each in its own memory."""

    def kernel(shape: tuple[int, int]) -> Packed:
        kept = pattern if config.vocab_size not in shape else None
        return random_packed(Case(*shape, 64, 1, 4, kept, None, True), 0)

    shapes = parameter_shapes(config)
    kernels = {shape: kernel(shape) for shape in set(shapes.values()) if len(shape) == 2}

    def read(shape: tuple[int, ...]) -> np.ndarray | Packed:
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        return jax.tree.map(lambda plane: plane.copy(), kernels[shape])

    return Checkpoint(
        config=config,
        tensors={
            path: Tensor(
                shape, np.dtype(np.float32), lambda shape=shape: read(shape), len(shape) == 2
            )
            for path, shape in shapes.items()
        },
        tokenizer=None,
        source={"name": "random weights"},
        hf_config=config.to_hf(),
    )


def step_bytes(checkpoint: Checkpoint) -> int:
    """What a step must read of the weights: all but an embedding that is only looked up in."""
    tied = "output.kernel" not in checkpoint.paths
    paths = [path for path in checkpoint.paths if tied or path != "embedding.kernel"]
    return sum(checkpoint.read(path).nbytes for path in paths)


def ours(runner: Runner, prompt: list[int], long: list[int]) -> tuple[float, float]:
    """Seconds of a token and of the long prefill."""
    clock, first = Clock(), Clock()
    for _ in draw(runner, prompt, NEW, Sampling(), jax.random.key(0), clock):
        pass
    for _ in draw(runner, long, 1, Sampling(), jax.random.key(0), first):
        pass
    return clock.step_seconds / clock.steps, first.prefill_seconds


def theirs(peer: LlamaCpp, prompt: list[int], long: list[int]) -> tuple[float, float]:
    """Seconds of a token and of the long prefill."""
    token = peer.prefill(prompt)
    start = time.perf_counter()
    for _ in range(NEW - 1):
        token = peer.step(token)
    step = (time.perf_counter() - start) / (NEW - 1)
    start = time.perf_counter()
    peer.prefill(long)
    return step, time.perf_counter() - start


def host_seconds(runner: Runner, prompt: list[int]) -> float:
    """What asking for a step takes before Python goes on, with nothing running."""
    runner.compile(len(prompt), len(prompt) + NEW)
    logits, cache = runner.prefill(prompt, len(prompt) + NEW)
    least = float("inf")
    for _ in range(NEW):
        token = jax.block_until_ready(logits.argmax())
        start = time.perf_counter()
        logits, cache = runner.step(token, cache)
        least = min(least, time.perf_counter() - start)
        jax.block_until_ready(logits)
    return least


def compare(
    checkpoints: dict[str, Checkpoint], peer: LlamaCpp, text: np.ndarray, rounds: int
) -> Iterator[dict]:
    """One row for every model: seconds and perplexities side by side."""
    ids = np.random.default_rng(0).integers(1, peer.vocab_size, LONG).tolist()
    if len(text):
        ids = text.reshape(-1)[:LONG].tolist()
    prompt = ids[:PROMPT]
    runners = {name: Runner(checkpoint) for name, checkpoint in checkpoints.items()}
    seconds = {name: Seconds() for name in runners}
    peer_seconds = Seconds()
    for _ in range(rounds):
        for name, runner in runners.items():
            let_others_sleep()
            seconds[name].take(*ours(runner, prompt, ids))
            let_others_sleep()
            peer_seconds.take(*theirs(peer, prompt, ids))
    peer_perplexity = peer.perplexity(text) if len(text) else None
    for name, checkpoint in checkpoints.items():
        yield {
            "case": name,
            "ours_seconds": seconds[name].token,
            "peers": {"llama.cpp Q4_0": peer_seconds.token},
            "prefill_seconds": seconds[name].prefill,
            "peers_prefill_seconds": {"llama.cpp Q4_0": peer_seconds.prefill},
            "perplexity": perplexity(checkpoint, text).perplexity if len(text) else None,
            "peers_perplexity": {"llama.cpp Q4_0": peer_perplexity},
            "host_seconds": host_seconds(runners[name], prompt),
            "bytes": step_bytes(checkpoint),
        }


def with_activations(models: dict[str, Checkpoint], quick: bool) -> dict[str, Checkpoint]:
    """Every model with int8 activations and, where there is time, with float ones."""
    formats = [("int8", Int(8))] if quick else [("int8", Int(8)), ("float", None)]
    return {
        f"{name}, {words} activations": checkpoint.with_activations(format)
        for name, checkpoint in models.items()
        for words, format in formats
    }


def measure(args: argparse.Namespace, folder: pathlib.Path) -> Iterator[dict]:
    """The rows of the model, or of the shape."""
    gguf, rounds = folder / "q4_0.gguf", 2 if args.quick else 5
    peer = functools.partial(LlamaCpp, gguf, THREADS, 1024)
    none = np.zeros((0, 0), np.int32)
    if args.shape:
        config = SHAPES[args.shape]
        write_random(config, gguf)
        models = {
            f"{args.shape} {name}": random_checkpoint(config, pattern)
            for name, pattern in (("int4", None), ("2:4 int4", NM(2, 4)))
        }
        return compare(with_activations(models, args.quick), peer(), none, rounds)
    requantize(smollm2_path(), gguf)
    models = {pathlib.Path(name).name: gossamer.load(name) for name in args.models}
    if not models:
        for recipe, method in (("int4", "rtn"), ("2:4-int4", "magnitude")):
            dense = gossamer.load("smollm2")
            models[f"{recipe} {method}"] = gossamer.compress(dense, recipe, method=method)
    tokenizer = gossamer.load("smollm2").require_tokenizer()
    text = read_text(args.text) if args.text else builtin_text("evaluation")
    cut = windows(tokenizer.encode(text), 1024, args.windows)
    return compare(with_activations(models, args.quick), peer(), cut, rounds)


def show(row: dict) -> None:
    """A line for people."""
    ((peer, theirs),) = row["peers"].items()
    ((_, prefill),) = row["peers_prefill_seconds"].items()
    line = (
        f"{row['case']:42s} {1 / row['ours_seconds']:7.1f} tokens/s, "
        f"{theirs / row['ours_seconds']:.2f} of {peer}'s, "
        f"{row['bound_seconds'] / row['ours_seconds']:.0%} of the bound; prefill "
        f"{LONG / row['prefill_seconds']:.0f} tokens/s, {prefill / row['prefill_seconds']:.2f}"
    )
    if row["perplexity"]:
        line += f"; perplexity {row['perplexity']:.2f} ({row['peers_perplexity'][peer]:.2f})"
    print(line, flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="saved models, from smollm2")
    parser.add_argument("--shape", choices=SHAPES, help="random weights in place of a model")
    parser.add_argument("--text", help="text file for the perplexity")
    parser.add_argument("--windows", type=int, default=8, help="of 1024 tokens")
    args = parser.parse_args()
    if args.quick:
        args.windows = 1
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(args, pathlib.Path(folder)))
    bandwidth = read_gb_per_second(threads=THREADS, seconds=0.5 if args.quick else 3.0)
    for row in rows:
        row["bound_seconds"] = row["bytes"] / bandwidth / 1e9
        show(row)
    result = {"read_gb_per_second": bandwidth, "rows": rows}
    keep(f"decode-{args.shape or 'smollm2'}", result, args.out)


if __name__ == "__main__":
    main()
