"""Whole training steps with int8 products, against float32, fake quantization, qwix and AQT.

    taskset -c 0 python benchmarks/training_step.py --out docs/results/

A step is forward, backward and AdamW of our Llama with random weights, on 4 sequences of 512
tokens. Every kernel, the output's included, has int8 weights with a scale per output and int8
activations with a scale per row, chosen at every step. Steps of all variants are taken in turns on
one state; the least and the median time of each are kept, and their ratios to float32. `forward` is
the loss alone.

The number of threads is that of the processors this process may use: `taskset -c 0` makes it one.
Peers are timed where they are installed: `pip install qwix aqtp`; both `dot_general`s are put
where ours is. The last line is JSON.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import optax
from flax import nnx
from results import arguments, keep
from training_peers import Wrap, peers

from gossamer.models import Llama, LlamaConfig
from gossamer.quantization import FloatResiduals, Int, QuantizedGradients, StraightThrough
from gossamer.recipe import Recipe, Rule
from gossamer.training import quantize_aware

BATCH, TOKENS = 4, 512
W8A8 = Recipe(rules=(Rule(path=r".*\.kernel", weights=Int(8), activations=Int(8)),))
SIZES = {
    "10M": LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=1024,
        num_layers=8,
        num_heads=4,
        num_kv_heads=4,
        head_dim=64,
        max_positions=TOKENS,
        tied=True,
    ),
    "135M": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_positions=TOKENS,
        tied=True,
    ),
}
State = tuple[nnx.State, optax.OptState]


def variants() -> dict[str, Wrap]:
    """What is put around the weights inside the loss."""

    def ours(**options) -> Wrap:
        return lambda state, key: quantize_aware(state, W8A8, key=key, **options)

    return {
        "float32": lambda state, key: state,
        "fake, straight through": ours(multiply="fake", backward=StraightThrough()),
        "native, straight through": ours(backward=StraightThrough()),
        "native, float residuals": ours(backward=FloatResiduals()),
        "native, integer gradients": ours(backward=QuantizedGradients()),
    } | peers()


def make_loss(graph: nnx.GraphDef, wrap: Wrap) -> Callable[..., jax.Array]:
    """Mean cross-entropy of the next token."""

    def loss(params: nnx.State, tokens: jax.Array, key: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, wrap(params, key))(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return loss


def compile_step(graph: nnx.GraphDef, wrap: Wrap, state: State, batch: tuple) -> Callable:
    """A training step; the state is updated where it is."""
    optimizer, loss = optax.adamw(1e-4), make_loss(graph, wrap)

    def step(state: State, tokens: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, tokens, key)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    return jax.jit(step, donate_argnums=0).lower(state, *batch).compile()


def measure(size: str, names: list[str] | None, rounds: int) -> list[dict]:
    """A row for every variant, of steps in turns."""
    graph, params = nnx.split(Llama(SIZES[size], nnx.Rngs(0)))
    state = (params, optax.adamw(1e-4).init(params))
    batch = (
        jax.random.randint(jax.random.key(1), (BATCH, TOKENS + 1), 0, SIZES[size].vocab_size),
        jax.random.key(2),
    )
    chosen = {name: wrap for name, wrap in variants().items() if not names or name in names}
    steps, forwards = {}, {}
    for name, wrap in chosen.items():
        start = time.perf_counter()
        steps[name] = compile_step(graph, wrap, state, batch)
        forwards[name] = jax.jit(make_loss(graph, wrap)).lower(params, *batch).compile()
        print(f"{size} {name}: compiled in {time.perf_counter() - start:.0f} s", flush=True)
    step_seconds: dict[str, list[float]] = {name: [] for name in chosen}
    forward_seconds: dict[str, list[float]] = {name: [] for name in chosen}
    losses: dict[str, float] = {}
    for turn in range(rounds + 1):  # the first touches memory for the first time
        for name in chosen:
            start = time.perf_counter()
            losses[name] = float(forwards[name](state[0], *batch))
            forward_seconds[name] += [time.perf_counter() - start] * (turn > 0)
            start = time.perf_counter()
            state, _ = jax.block_until_ready(steps[name](state, *batch))
            step_seconds[name] += [time.perf_counter() - start] * (turn > 0)
    return [
        {
            "model": size,
            "variant": name,
            "step_seconds": min(step_seconds[name]),
            "step_median_seconds": statistics.median(step_seconds[name]),
            "forward_seconds": min(forward_seconds[name]),
            "forward_median_seconds": statistics.median(forward_seconds[name]),
            "loss": losses[name],
            "rounds": rounds,
        }
        for name in chosen
    ]


def show(rows: list[dict]) -> None:
    """A line for each variant, with how many times as fast as float32 it is."""
    base = rows[0]
    for row in rows:
        row["step_speedup"] = base["step_seconds"] / row["step_seconds"]
        row["forward_speedup"] = base["forward_seconds"] / row["forward_seconds"]
        print(
            f"{row['model']} {row['variant']:26s} step {row['step_seconds']:7.3f} s (median "
            f"{row['step_median_seconds']:.3f}), {row['step_speedup']:.2f} x float32; forward "
            f"{row['forward_seconds']:7.3f} s, {row['forward_speedup']:.2f} x",
            flush=True,
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--variants", nargs="*", help="float32 first; all by default")
    parser.add_argument("--rounds", type=int, default=7, help="turns that every variant takes")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds = ["10M"], 1
    rows = []
    for size in args.models:
        measured = measure(size, args.variants, args.rounds)
        show(measured)
        rows += measured
    result = {"tokens": BATCH * TOKENS, "rows": rows}
    keep("training_step", result, args.out)


if __name__ == "__main__":
    main()
