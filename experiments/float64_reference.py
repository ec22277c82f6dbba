"""The published pruning algorithms in float64, against gossamer's own, on the same tokens.

    python experiments/float64_reference.py smollm2 --calibration sotu.txt.xz \
        --evaluation wiki.test.raw.xz --out docs/results/

SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1) and Wanda (Sun et al. 2023,
arXiv 2306.11695, eq. 1) at 2:4, written down a second time in plain NumPy, with a Llama of their
own, in the order of the released code: a block's statistics are those of its uncompressed weights
on what the compressed blocks before it give. Nothing of `gossamer.compression` or `gossamer.models`
is used for that half; the weights, the tokens and the evaluation windows are the same.

Magnitude needs no calibration; where weights are tied at the cut, the published rule does not say
which stays, so that several choices are measured.

Hardware: two CPU cores with AVX-512, about an hour for SmolLM2-135M. A row that is in
`float64.json` already is not computed again. Expected: Wanda within 1 % of float64; SparseGPT
within 4 % to either side as the order of the sequences has it, the mean of the orders within 2 %.
"""

import argparse
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np

import gossamer
from gossamer.compression.calibration import Calibration
from gossamer.data import read_text, windows
from gossamer.evaluation import perplexity
from gossamer.loading import Checkpoint

KEPT, GROUP = 2, 4
COLUMNS = 128  # of SparseGPT's lazy updates
DAMPING = 0.01
SHUFFLES = 5  # orders of the calibration sequences, for the spread that rounding alone gives
ATTENTION = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

Weights = dict[str, np.ndarray]
"""A block's parameters in float64; kernels are [in, out]."""
Observe = Callable[[str, np.ndarray], None]
"""Told a kernel's name and its input [tokens, in]."""
Prune = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Prunes W [out, in], given H = sum of x x^T over the tokens."""


class Llama64:
    """A plain Llama in float64, one block at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        if self.config.attention_bias or self.config.mlp_bias or self.config.rotary.scaling:
            raise ValueError("The float64 reference knows Llamas without biases or scaled rotary.")

    def read(self, path: str) -> np.ndarray:
        return np.asarray(self.checkpoint.read(path), np.float64)

    def block(self, index: int) -> Weights:
        prefix = f"layers.{index}."
        inside = [path for path in self.checkpoint.paths if path.startswith(prefix)]
        return {path.removeprefix(prefix): self.read(path) for path in inside}

    def norm(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + self.config.norm_epsilon) * scale

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """Turns [tokens, heads, head_dim]; pairs are (i, i + half)."""
        half = self.config.head_dim // 2
        speed = self.config.rotary.theta ** (-np.arange(half) / half)
        angle = (np.arange(len(x))[:, None] * speed)[:, None, :]
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, x: np.ndarray, w: Weights, observe: Observe) -> np.ndarray:
        heads = (len(x), -1, self.config.head_dim)
        for name in ATTENTION[:3]:
            observe(name, x)
        q, k, v = ((x @ w[f"{name}.kernel"]).reshape(heads) for name in ATTENTION[:3])
        shared = self.config.num_heads // self.config.num_kv_heads
        k, v = (np.repeat(part, shared, axis=1) for part in (self.rotate(k), v))
        scores = np.einsum("qnh,knh->nqk", self.rotate(q), k, optimize=True)
        scores /= math.sqrt(self.config.head_dim)
        scores[:, np.triu(np.ones((len(x), len(x)), bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("nqk,knh->qnh", scores, v, optimize=True).reshape(len(x), -1)
        observe("attention.o_proj", mixed)
        return mixed @ w["attention.o_proj.kernel"]

    def mlp(self, x: np.ndarray, w: Weights, observe: Observe) -> np.ndarray:
        observe("mlp.gate_proj", x)
        observe("mlp.up_proj", x)
        gate, up = x @ w["mlp.gate_proj.kernel"], x @ w["mlp.up_proj.kernel"]
        inner = gate / (1 + np.exp(-gate)) * up
        observe("mlp.down_proj", inner)
        return inner @ w["mlp.down_proj.kernel"]

    def run(self, x: np.ndarray, w: Weights, observe: Observe = lambda *_: None) -> np.ndarray:
        """One sequence [tokens, hidden] through a block."""
        x = x + self.attention(self.norm(x, w["attention_norm.scale"]), w, observe)
        return x + self.mlp(self.norm(x, w["mlp_norm.scale"]), w, observe)

    def loss(self, x: np.ndarray, tokens: np.ndarray, table: np.ndarray) -> float:
        """Sum of the negative log-likelihoods, in nats; `table` is [vocabulary, hidden]."""
        logits = self.norm(x, self.read("norm.scale"))[:-1] @ table.T
        top = logits.max(-1)
        log_sum = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
        return float((log_sum - logits[np.arange(len(logits)), tokens[1:]]).sum())


def lowest(scores: np.ndarray, rank: np.ndarray | None = None) -> np.ndarray:
    """True for the GROUP - KEPT lowest of each group along the last axis.

    Of equal scores the one with the higher `rank` [..., GROUP] is pruned, by default the later.
    """
    groups = scores.reshape(*scores.shape[:-1], -1, GROUP)
    rank = np.broadcast_to(np.arange(GROUP) if rank is None else rank, groups.shape)
    order = np.lexsort((rank, -groups), axis=-1)
    pruned = np.zeros(groups.shape, bool)
    np.put_along_axis(pruned, order[..., KEPT:], True, axis=-1)
    return pruned.reshape(scores.shape)


def wanda(w: np.ndarray, gram: np.ndarray) -> np.ndarray:
    return np.where(lowest(np.abs(w) * np.sqrt(np.diag(gram))), 0, w)


def sparsegpt(w: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Algorithm 1 with the mask of each group taken when the sweep reaches it."""
    w, h = w.copy(), 2 * gram
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h[np.diag_indices(len(h))] += DAMPING * np.mean(np.diag(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    for start in range(0, w.shape[1], COLUMNS):
        stop = min(start + COLUMNS, w.shape[1])
        errors = np.zeros((len(w), stop - start))
        for j in range(start, stop):
            if j % GROUP == 0:
                pruned = lowest((w[:, j : j + GROUP] / np.diag(u)[j : j + GROUP]) ** 2)
            kept = np.where(pruned[:, j % GROUP], 0, w[:, j])
            error = (w[:, j] - kept) / u[j, j]
            w[:, j:stop] -= np.outer(error, u[j, j:stop])
            w[:, j] = kept
            errors[:, j - start] = error
        w[:, stop:] -= errors @ u[start:stop, stop:]
    return w


def magnitude(ties: str, w: np.ndarray, _gram: np.ndarray) -> np.ndarray:
    """`ties` says which of equal weights stays: "lower", "higher" or "random SEED"."""
    rank = np.arange(GROUP) if ties == "lower" else -np.arange(GROUP)
    if ties.startswith("random"):
        random = np.random.default_rng(int(ties.split()[1]))
        rank = random.random((*w.shape[:-1], w.shape[-1] // GROUP, GROUP))
    return np.where(lowest(np.abs(w), rank), 0, w)


def pruned_blocks(model: Llama64, prune: Prune, tokens: np.ndarray | None) -> Iterator[Weights]:
    """The model's blocks in order, pruned; `tokens` are the calibration sequences, if any."""
    table = model.read("embedding.kernel").T.copy()
    hidden = [] if tokens is None else [table[sequence] for sequence in tokens]
    for index in range(model.config.num_layers):
        w = model.block(index)
        grams: dict[str, np.ndarray] = {}

        def observe(name: str, x: np.ndarray, grams: dict = grams) -> None:
            grams[name] = grams.get(name, 0) + x.T @ x

        for x in hidden:
            model.run(x, w, observe)
        for name in (*ATTENTION, *MLP):
            kernel = w[f"{name}.kernel"]
            w[f"{name}.kernel"] = prune(kernel.T, grams.get(name, np.zeros(0))).T
        hidden = [model.run(x, w) for x in hidden]
        yield w


def reference(
    model: Llama64, prune: Prune, tokens: np.ndarray | None, evaluation: np.ndarray
) -> dict:
    """Prunes the model and evaluates it, both in float64."""
    start = time.perf_counter()
    table = model.read("embedding.kernel").T.copy()
    hidden = [table[window] for window in evaluation]
    for w in pruned_blocks(model, prune, tokens):
        hidden = [model.run(x, w) for x in hidden]
        print(".", end="", flush=True)
    output = table if model.config.tied else model.read("output.kernel").T
    total = sum(model.loss(x, t, output) for x, t in zip(hidden, evaluation, strict=True))
    mean = total / (len(evaluation) * (evaluation.shape[1] - 1))
    return {"perplexity": math.exp(mean), "seconds": time.perf_counter() - start}


def ours(
    checkpoint: Checkpoint, method: str, calibration: Calibration | None, evaluation: np.ndarray
) -> dict:
    """The same by gossamer, in float32."""
    start = time.perf_counter()
    small = checkpoint
    if method != "dense":
        recipe = f"{KEPT}:{GROUP}"
        small = gossamer.compress(checkpoint, recipe, method=method, calibration=calibration)
    value = perplexity(small, evaluation).perplexity
    return {"perplexity": value, "seconds": time.perf_counter() - start}


def cases(
    checkpoint: Checkpoint, calibration: Calibration, evaluation: np.ndarray
) -> dict[str, Callable[[], dict]]:
    """Every row by its name."""
    model = Llama64(checkpoint)
    backwards = Calibration(text=calibration.text, tokens=calibration.tokens[::-1].copy())
    mine = functools.partial(ours, checkpoint, evaluation=evaluation)
    plain = functools.partial(reference, model, evaluation=evaluation)
    rows = {
        "dense float64": lambda: plain(lambda w, _: w, None),
        "dense gossamer": lambda: mine("dense", None),
        "magnitude gossamer": lambda: mine("magnitude", None),
    }
    for ties in ("lower", "higher", "random 0", "random 1", "random 2"):
        name = f"magnitude float64, of equal weights keeps {ties}"
        rows[name] = functools.partial(plain, functools.partial(magnitude, ties), None)
    for method, prune in (("wanda", wanda), ("sparsegpt", sparsegpt)):
        rows[f"{method} float64"] = functools.partial(plain, prune, calibration.tokens)
        rows[f"{method} gossamer"] = functools.partial(mine, method, calibration)
        name = f"{method} gossamer, calibration sequences in reverse order"
        rows[name] = functools.partial(mine, method, backwards)
    for seed in range(SHUFFLES):
        shuffled = np.random.default_rng(seed).permutation(calibration.tokens)
        other = Calibration(text=calibration.text, tokens=shuffled)
        rows[f"sparsegpt gossamer, shuffled {seed}"] = functools.partial(mine, "sparsegpt", other)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name starts so")
    args = parser.parse_args()
    checkpoint = gossamer.load(args.model)
    tokenizer = checkpoint.require_tokenizer()
    calibration = Calibration.from_text(args.calibration, tokenizer, count=64, length=512, seed=0)
    evaluation = windows(tokenizer.encode(read_text(args.evaluation)), 1024, 8)
    file = args.out / "float64.json"
    done = json.loads(file.read_text()) if file.exists() else {}
    for name, measure in cases(checkpoint, calibration, evaluation).items():
        if name in done or not name.startswith(args.only):
            continue
        done[name] = measure()
        file.write_text(json.dumps(done, indent=1) + "\n")
        print(f"\n{name}: {json.dumps(done[name])}", flush=True)


if __name__ == "__main__":
    main()
