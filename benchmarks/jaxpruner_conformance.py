"""The same weights and gradients through JaxPruner's algorithms and ours: do masks agree?

    python benchmarks/jaxpruner_conformance.py

Every algorithm that both have trains a small regression for thirty steps with Adam. Printed is how
many places of masks and forward weights differ, over all steps, and the largest difference of
weights. What is drawn at random is JaxPruner's on both sides, and so are its drop fraction and its
cubic schedule, which is one step ahead of the paper's. N:M has no schedule there: it is full from
the first update on; and SET and RigL drop nothing there, so they are left out. Needs JaxPruner
(see jaxpruner_peer.py).
"""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import jaxpruner_peer as peer
import optax

from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Block, Channel, Cubic, Pattern, Periodic, Unstructured
from gossamer.sparsity.methods import (
    SET,
    STE,
    GlobalMagnitude,
    GlobalSaliency,
    GradualMagnitude,
    Method,
    RandomPruning,
    RigL,
    Saliency,
    StaticRandom,
)

STEPS, EVERY, STOP = 30, 5, 20
SHAPES = {"first": (32, 40), "second": (40, 24)}
DROP = (
    0.12  # so that no count of what is dropped ends in a half, which float32 may round either way
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ahead(Cubic):
    """JaxPruner's cubic schedule: what the paper has one step later."""

    def sparsity(self, step: Any, final: float) -> Any:
        return super().sparsity(step + 1, final)


class Draws:
    """Scores that JaxPruner draws at a step, for our methods."""

    def drawn(self, path: str, step: Any) -> jax.Array:
        params = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
        key = jax.random.PRNGKey(8)
        if step is not None:
            key = jax.random.fold_in(key, step)
        return peer.random_scores(params, key)[path]

    def first_masks(self, params: Any) -> dict[str, jax.Array]:
        if not isinstance(self, StaticRandom):
            return super().first_masks(params)
        patterns = self.patterns(params)
        return {p: pattern.mask(self.drawn(p, None), -2) for p, pattern in patterns.items()}


class DrawnRandom(Draws, RandomPruning):
    def score(self, path: str, weight: Any, grad: Any, keep: Any, step: Any) -> jax.Array:
        return jnp.where(keep, self.drawn(path, step), 0)


class DrawnStatic(Draws, StaticRandom):
    pass


class DrawnSET(Draws, SET):
    def growth(self, path: str, weight: Any, grad: Any, step: Any) -> jax.Array:
        return self.drawn(path, step)


class DrawnRigL(Draws, RigL):
    pass


class DrawnSTE(Draws, STE):
    def new_mask(self, path: str, weight: Any, pattern: Pattern, step: Any) -> jax.Array:
        progress = self.schedule.progress(step, pattern.sparsity)
        return pattern.mask(self.drawn(path, step), -2, progress)


SCHEDULED: dict[str, type[Method]] = {
    "magnitude": GradualMagnitude,
    "saliency": Saliency,
    "random": DrawnRandom,
    "global_magnitude": GlobalMagnitude,
    "global_saliency": GlobalSaliency,
    "set": DrawnSET,
    "rigl": DrawnRigL,
    "static_sparse": DrawnStatic,
    "magnitude_ste": STE,
    "random_ste": DrawnSTE,
}
KINDS: dict[str, tuple[Pattern, float, str | None]] = {
    "80%": (Unstructured(0.8), 0.8, None),
    "2:4": (NM(2, 4), 0.5, "nm"),
    "block 4x4": (Block(0.5, (4, 4)), 0.5, "block_4,4"),
    "channel": (Channel(0.5), 0.5, "channel_0"),
}


def ours(algorithm: str, pattern: Pattern) -> Method:
    recipe = Recipe(rules=(Rule(path=".*", pattern=pattern),))
    given: dict[str, Any] = {"recipe": recipe}
    if algorithm != "static_sparse":
        every = 1 if algorithm.endswith("_ste") else EVERY
        climb = Periodic if isinstance(pattern, NM) else Ahead
        given["schedule"] = climb(start=0, stop=STOP, every=every)
    if algorithm in ("set", "rigl"):
        given["drop_fraction"] = DROP
    return SCHEDULED[algorithm](**given)


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["first"]) @ params["second"] - y) ** 2)


def compare(algorithm: str, kind: str) -> dict[str, Any]:
    """Thirty steps of both from the same weights on the same batches."""
    pattern, sparsity, name = KINDS[kind]
    method = ours(algorithm, pattern)
    updater = peer.updater(algorithm, sparsity, name, EVERY, STOP, DROP)
    keys = jax.random.split(jax.random.key(3), 2)
    start = {k: jax.random.normal(key, SHAPES[k]) / 4 for k, key in zip(SHAPES, keys, strict=True)}
    inner = optax.adam(1e-2)
    mine, (peer_init, peer_step) = method.wrap(inner), peer.step(updater, inner, loss)

    @jax.jit
    def step(params: Any, state: Any, *batch: jax.Array) -> tuple[Any, Any, Any]:
        weights = method.weights(params, state)
        grads = jax.grad(loss)(weights, *batch)
        updates, state = mine.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state, weights

    # Its sparse training starts dense, ours sparse: both start from what the masks leave.
    state, peer_state = mine.init(start), peer_init(start)
    params = (
        method.weights(start, state) if algorithm in ("set", "rigl", "static_sparse") else start
    )
    peer_params, peer_run = params, jax.jit(peer_step)
    places, largest = 0, 0.0
    for number in range(STEPS):
        batch_keys = jax.random.split(jax.random.key(100 + number), 2)
        batch = (
            jax.random.normal(batch_keys[0], (64, 32)),
            jax.random.normal(batch_keys[1], (64, 24)),
        )
        params, state, seen = step(params, state, *batch)
        peer_params, peer_state, peer_seen = peer_run(peer_params, peer_state, *batch)
        for leaf in SHAPES:
            places += int(jnp.sum((params[leaf] == 0) != (peer_params[leaf] == 0)))
            places += int(jnp.sum((seen[leaf] == 0) != (peer_seen[leaf] == 0)))
            largest = max(largest, float(jnp.abs(params[leaf] - peer_params[leaf]).max()))
    return {
        "algorithm": algorithm,
        "pattern": kind,
        "places_that_differ": places,
        "largest_difference": largest,
    }


def main() -> None:
    peer.load()
    rows = []
    for algorithm in SCHEDULED:
        for kind in KINDS:
            one_threshold = algorithm.startswith("global") and kind != "80%"
            drops_nothing = algorithm in ("set", "rigl") and kind == "2:4"
            if one_threshold or drops_nothing:
                continue
            rows.append(compare(algorithm, kind))
            print(json.dumps(rows[-1]), flush=True)
    agree = sum(row["places_that_differ"] == 0 for row in rows)
    print(json.dumps({"agree": agree, "of": len(rows)}))


if __name__ == "__main__":
    main()
