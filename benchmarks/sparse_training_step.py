"""What a sparse-training method adds to a training step, JaxPruner's beside ours.

    python benchmarks/sparse_training_step.py --out docs/results/

A step is forward, backward and AdamW of a decoder of 10 million parameters (OPT's architecture) on
8 sequences of 128 tokens; its 7.4 million weights in kernels of blocks are pruned. What is counted
is the CPU time of all threads, which other work on the machine changes little: every step is run
between two dense ones and compared with their mean, and the median of such ratios is told, with
dense against dense as the control. `ordinary` steps leave masks alone, `update` steps change them;
a method that looks at its masks at every step has no ordinary ones. Bytes are those of masks and
counters, per pruned weight.

JaxPruner is timed where it is installed (see jaxpruner_peer.py). The last line is JSON.
"""

import argparse
import dataclasses
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxpruner_peer as peer
import optax
from flax import nnx
from results import arguments, keep

from gossamer.models import Opt, OptConfig
from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Pattern, Periodic, Unstructured
from gossamer.sparsity.methods import (
    SET,
    SRSTE,
    STE,
    Frozen,
    GlobalMagnitude,
    GradualMagnitude,
    MdGf,
    Method,
    RigL,
    Saliency,
)

BATCH, TOKENS, EVERY, STOP = 8, 128, 10, 1000
MODEL = OptConfig(
    vocab_size=8192,
    hidden_size=320,
    intermediate_size=1280,
    num_layers=6,
    num_heads=5,
    max_positions=TOKENS,
)
KERNELS = r"layers\..*\.kernel"
HALF, MOST = NM(2, 4), Unstructured(0.8)
Params = dict[str, jax.Array]


@dataclasses.dataclass
class Variant:
    """A compiled step, what it steps on, and how its counter is put to a step.

    Attributes:
        name: of the method and its pattern.
        kind: `ordinary`, `update` or `every step`.
        run: parameters, state and tokens to parameters and state, in their memory.
        at: the state with its counter where this kind of step is due.
        bytes_per_weight: of masks and counters.
    """

    name: str
    kind: str
    run: Callable[..., tuple[Params, Any]]
    at: Callable[[Any], Any]
    params: Params
    state: Any
    bytes_per_weight: float = 0.0

    def seconds(self, tokens: jax.Array) -> float:
        """CPU seconds of one step."""
        state = jax.block_until_ready(self.at(self.state))
        start = time.process_time()
        self.params, self.state = jax.block_until_ready(self.run(self.params, state, tokens))
        return time.process_time() - start


class Model:
    """The decoder, as a loss of its parameters by path."""

    def __init__(self) -> None:
        self.graph, self.tree = nnx.split(Opt(MODEL, nnx.Rngs(0)))

    def params(self) -> Params:
        """A copy of the first parameters."""
        return {path: jnp.array(leaf) for path, leaf in leaves_by_path(self.tree).items()}

    def loss(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Mean cross-entropy of the next token."""
        logits = nnx.merge(self.graph, replace_leaves(self.tree, params))(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def inner() -> optax.GradientTransformation:
    return optax.adamw(1e-4)


def dense(model: Model, name: str) -> Variant:
    """No method."""
    optimizer, params = inner(), model.params()

    def step(params: Params, state: Any, tokens: jax.Array) -> tuple[Params, Any]:
        grads = jax.grad(model.loss)(params, tokens)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(step, donate_argnums=(0, 1))
    return Variant(name, "every step", run, lambda state: state, params, optimizer.init(params))


def methods() -> dict[str, tuple[Callable[[Recipe], Method], Pattern]]:
    """Ours, and on which pattern. Those whose name says so change masks every ten steps."""
    periodic = Periodic(start=0, stop=STOP, every=EVERY)
    return {
        "frozen 2:4": (lambda r: Frozen(recipe=r), HALF),
        "frozen 80 %": (lambda r: Frozen(recipe=r), MOST),
        "STE 2:4": (lambda r: STE(recipe=r), HALF),
        "SR-STE 2:4": (lambda r: SRSTE(recipe=r), HALF),
        "MdGf 2:4": (lambda r: MdGf(recipe=r, stop=STOP), HALF),
        "STE 80 %, every 10": (lambda r: STE(recipe=r, schedule=Periodic(every=EVERY)), MOST),
        "SR-STE 80 %, every 10": (lambda r: SRSTE(recipe=r, schedule=Periodic(every=EVERY)), MOST),
        "magnitude 2:4": (lambda r: GradualMagnitude(recipe=r, schedule=periodic), HALF),
        "magnitude 80 %": (lambda r: GradualMagnitude(recipe=r, schedule=periodic), MOST),
        "magnitude 80 %, packed": (
            lambda r: GradualMagnitude(recipe=r, schedule=periodic, packed=True),
            MOST,
        ),
        "global magnitude 80 %": (lambda r: GlobalMagnitude(recipe=r, schedule=periodic), MOST),
        "saliency 80 %": (lambda r: Saliency(recipe=r, schedule=periodic), MOST),
        "SET 80 %": (lambda r: SET(recipe=r, schedule=periodic), MOST),
        "RigL 80 %": (lambda r: RigL(recipe=r, schedule=periodic), MOST),
    }


def ours(model: Model, name: str, make: Callable[[Recipe], Method], pattern: Pattern) -> Any:
    """The variants of one method."""
    method = make(Recipe(rules=(Rule(path=KERNELS, pattern=pattern),)))
    optimizer = method.wrap(inner())

    def step(params: Params, state: Any, tokens: jax.Array) -> tuple[Params, Any]:
        weights = method.weights(params, state)
        grads = jax.grad(model.loss)(weights, tokens)
        updates, state = optimizer.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    def at(number: int) -> Callable[[Any], Any]:
        def put(state: Any) -> Any:
            sparse = dataclasses.replace(state.sparse, step=jnp.int32(number))
            return state._replace(sparse=sparse)

        return put

    run = jax.jit(step, donate_argnums=(0, 1))
    # Methods with dense weights look for the masks of the next step at the end of this one.
    update_at = STOP // 2 - 1 if isinstance(method, STE | SRSTE) else STOP // 2
    steps = {"ordinary": STOP // 2 + EVERY // 2, "update": update_at}
    if type(method) is Frozen:  # SET and RigL are kinds of it
        steps = {"ordinary": 0}
    elif isinstance(method, STE | SRSTE | MdGf) and method.schedule.every == 1:
        steps = {"every step": 0}
    for kind, number in steps.items():
        params = model.params()
        if type(method) is Frozen:
            params |= {
                path: weight * pattern.mask(jnp.abs(weight), -2)
                for path, weight in method.selected(params).items()
            }
        state = optimizer.init(params)
        size = sum(weight.size for weight in method.selected(params).values())
        nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.sparse)) / size
        yield Variant(f"gossamer {name}", kind, run, at(number), params, state, nbytes)


THEIRS = {  # ours: JaxPruner's algorithm, whether it is N:M, the kinds of its steps
    "static 80 %": ("static_sparse", False, ("ordinary",)),
    "STE 2:4": ("magnitude_ste", True, ("every step",)),
    "STE 80 %, every 10": ("magnitude_ste", False, ("every step",)),
    "magnitude 2:4": ("magnitude", True, ("ordinary", "update")),
    "magnitude 80 %": ("magnitude", False, ("ordinary", "update")),
    "global magnitude 80 %": ("global_magnitude", False, ("ordinary", "update")),
    "saliency 80 %": ("saliency", False, ("ordinary", "update")),
    "SET 80 %": ("set", False, ("ordinary", "update")),
    "RigL 80 %": ("rigl", False, ("ordinary", "update")),
}


def theirs(model: Model, name: str) -> Iterator[Variant]:
    """The variants of one of JaxPruner's algorithms."""
    algorithm, is_nm, kinds = THEIRS[name]
    updater = peer.updater(
        algorithm,
        0.5 if is_nm else 0.8,
        "nm" if is_nm else None,
        EVERY,
        STOP,
        0.3,
        lambda path, leaf: path[0].startswith("layers.") and path[0].endswith(".kernel"),
    )
    init, step = peer.step(updater, inner(), model.loss)
    run = jax.jit(lambda *args: step(*args)[:2], donate_argnums=(0, 1))
    for kind in kinds:
        params, number = model.params(), STOP // 2 + (kind == "ordinary") * EVERY // 2
        state = init(params)
        masks = jax.tree.leaves(state.masks)
        size = sum(mask.size for mask in masks)
        nbytes = sum(mask.nbytes for mask in masks) / size if size else 0.0
        at = functools.partial(_counted, number)
        yield Variant(f"JaxPruner {name}", kind, run, at, params, state, nbytes)


def _counted(number: int, state: Any) -> Any:
    return state._replace(count=jnp.int32(number))


def variants(names: list[str] | None) -> Iterator[Variant]:
    """All, dense first, or those whose names have one of these parts."""
    model = Model()
    yield dense(model, "dense")
    yield dense(model, "dense again")

    def is_wanted(name: str) -> bool:
        return not names or any(part in name for part in names)

    for name, (make, pattern) in methods().items():
        if is_wanted(f"gossamer {name}"):
            yield from ours(model, name, make, pattern)
    if importlib.util.find_spec("jaxpruner"):
        for name in THEIRS:
            if is_wanted(f"JaxPruner {name}"):
                yield from theirs(model, name)


def measure(found: list[Variant], rounds: int) -> list[dict[str, Any]]:
    """A row for each but the dense step, of ratios to the dense steps before and after."""
    tokens = jax.random.randint(jax.random.key(1), (BATCH, TOKENS + 1), 0, MODEL.vocab_size)
    base, others = found[0], found[1:]
    for variant in found:
        start = time.perf_counter()
        variant.seconds(tokens)
        print(f"{variant.name}, {variant.kind}: {time.perf_counter() - start:.1f} s", flush=True)
    ratios: list[list[float]] = [[] for _ in others]
    base_seconds = []
    for _ in range(rounds):
        before = base.seconds(tokens)
        for place, variant in enumerate(others):
            mine = variant.seconds(tokens)
            after = base.seconds(tokens)
            ratios[place].append(2 * mine / (before + after))
            base_seconds.append(after)
            before = after
    print(f"dense: {statistics.median(base_seconds):.3f} CPU seconds", flush=True)
    return [
        {
            "variant": variant.name,
            "kind": variant.kind,
            "ratio": statistics.median(row),
            "quartiles": statistics.quantiles(row, n=4)[::2] if len(row) > 1 else [],
            "bytes_per_weight": variant.bytes_per_weight,
        }
        for variant, row in zip(others, ratios, strict=True)
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=15, help="steps of every variant")
    parser.add_argument("--variants", nargs="*", help="parts of names; all by default")
    args = parser.parse_args()
    rows = measure(list(variants(args.variants)), 3 if args.quick else args.rounds)
    for row in rows:
        print(
            f"{row['variant']:34s} {row['kind']:11s} {row['ratio']:.3f} x dense, "
            f"{row['bytes_per_weight']:.3f} bytes a weight"
        )
    keep("sparse_training_step", {"rows": rows, "rounds": args.rounds}, args.out)


if __name__ == "__main__":
    main()
