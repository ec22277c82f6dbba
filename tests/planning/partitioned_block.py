"""A transformer block in the layouts of Pope et al., as programs on a mesh of axes x, y and z.

One block as in PaLM: attention with one key-value head and a gated feed-forward layer, side by
side. The norm before them is left out: its statistics are one number a token, which the paper's
volumes do not count.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

Weights: TypeAlias = Mapping[str, jax.Array]
EVERYWHERE = ("x", "y", "z")
GATHERED = {"wg-x": ("x",), "wg-xy": ("x", "y"), "wg-xyz": EVERYWHERE}
"""The axes over which weights are gathered, by layout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """B, L, S, E, F, H and Q of the paper; S tokens are cached before the L new ones."""

    batch: int
    tokens: int
    cached: int
    d_model: int
    d_ff: int
    heads: int
    head_dim: int

    def weights(self, rng: np.random.Generator) -> Weights:
        """Random kernels."""
        e, f, h, q = self.d_model, self.d_ff, self.heads, self.head_dim
        shapes = {
            "query": (e, h, q),
            "gate": (e, f),
            "up": (e, f),
            "key_value": (e, 2, q),
            "output": (h, q, e),
            "down": (f, e),
        }
        return {
            name: jnp.asarray(rng.normal(size=shape) / e**0.5, jnp.float32)
            for name, shape in shapes.items()
        }

    def inputs(self, rng: np.random.Generator) -> tuple[jax.Array, jax.Array]:
        """Random hidden states `[B, L, E]` and cached keys and values `[B, S, 2, Q]`."""
        x = rng.normal(size=(self.batch, self.tokens, self.d_model))
        cache = rng.normal(size=(self.batch, self.cached, 2, self.head_dim))
        return jnp.asarray(x, jnp.float32), jnp.asarray(cache, jnp.float32)


def on_one_chip(weights: Weights, x: jax.Array, cache: jax.Array) -> jax.Array:
    """The block without partitions."""
    query = jnp.einsum("ble,ehq->blhq", x, weights["query"])
    key_value = jnp.einsum("ble,ecq->blcq", x, weights["key_value"])
    attended = _attend(query, key_value, cache)
    hidden = _gated(x @ weights["gate"], x @ weights["up"])
    return jnp.einsum("blhq,hqe->ble", attended, weights["output"]) + hidden @ weights["down"]


def partitioned(layout: str, attention: str, mesh: jax.sharding.Mesh):
    """The same block as a program on a mesh; takes and gives whole arrays.

    Args:
        layout: ws-1d, ws-2d, wg-x, wg-xy or wg-xyz.
        attention: heads or batch: what attention is divided by.
        mesh: of axes x, y and z.
    """
    gathered = GATHERED.get(layout, ())
    rest = tuple(axis for axis in EVERYWHERE if axis not in gathered)
    spread = PartitionSpec(gathered or None, None, rest or None)
    # Cached keys and values lie where attention is: with their sequences, or everywhere.
    order = ("y", "z", "x") if layout == "ws-2d" else EVERYWHERE
    held = PartitionSpec(order if attention == "batch" else gathered or None)
    one = layout == "ws-1d"
    across, inside = (None, EVERYWHERE) if one else ("x", ("y", "z"))
    specs = {
        "query": PartitionSpec(across, inside, None),
        "gate": PartitionSpec(across, inside),
        "up": PartitionSpec(across, inside),
        "key_value": PartitionSpec(across, None, None),
        "output": PartitionSpec(inside, None, across),
        "down": PartitionSpec(inside, across),
    }
    programs = {"ws-1d": _stationary_1d, "ws-2d": _stationary_2d}
    program = programs.get(layout, _gathering(gathered, rest))

    def run(weights: Weights, x: jax.Array, cache: jax.Array) -> jax.Array:
        return program(weights, x, cache, attention == "batch")

    return jax.jit(
        jax.shard_map(
            run, mesh=mesh, in_specs=(specs, spread, held), out_specs=spread, check_vma=False
        )
    )


def _stationary_1d(weights: Weights, x: jax.Array, cache: jax.Array, by_batch: bool) -> jax.Array:
    x = lax.all_gather(x, EVERYWHERE, axis=2, tiled=True)
    y = _whole_inputs(weights, x, cache, EVERYWHERE if by_batch else ())
    return lax.psum_scatter(y, EVERYWHERE, scatter_dimension=2, tiled=True)


def _stationary_2d(weights: Weights, x: jax.Array, cache: jax.Array, by_batch: bool) -> jax.Array:
    x = lax.all_gather(x, ("y", "z"), axis=2, tiled=True)  # E_x is left
    # Sums over x are scattered into heads and into the feed-forward layer's width.
    query = _scatter(jnp.einsum("ble,ehq->blhq", x, weights["query"]))
    gate, up = (_scatter(x @ weights[name]) for name in ("gate", "up"))
    key_value = lax.psum(jnp.einsum("ble,ecq->blcq", x, weights["key_value"]), "x")
    # Heads lie by y, z, x: within what y and z have, x divides.
    attended = _exchange(query, key_value, cache, ("y", "z", "x") if by_batch else ())
    attended = lax.all_gather(attended, "x", axis=2, tiled=True)
    hidden = lax.all_gather(_gated(gate, up), "x", axis=2, tiled=True)
    y = jnp.einsum("blhq,hqe->ble", attended, weights["output"]) + hidden @ weights["down"]
    return lax.psum_scatter(y, ("y", "z"), scatter_dimension=2, tiled=True)


def _gathering(gathered: tuple[str, ...], rest: tuple[str, ...]):
    """Weights come to the activations over some axes; the others hold parts of E between blocks."""

    def program(weights: Weights, x: jax.Array, cache: jax.Array, by_batch: bool) -> jax.Array:
        # Where E and where heads or F are.
        places = {"query": (0, 1), "gate": (0, 1), "up": (0, 1), "output": (2, 0), "down": (1, 0)}
        whole = {
            name: _gather_blocks(weights[name], gathered, e, f) for name, (e, f) in places.items()
        }
        whole["key_value"] = _gather(weights["key_value"], ("x",), 0)
        x = _gather(x, rest, 2)
        y = _whole_inputs(whole, x, cache, rest if by_batch else ())
        return lax.psum_scatter(y, rest, scatter_dimension=2, tiled=True) if rest else y

    return program


def _gather_blocks(weight: jax.Array, axes: tuple[str, ...], e: int, f: int) -> jax.Array:
    """Joins blocks that are divided along E over x and along another place over other axes.

    Gathered in one collective: one for each place would move the same bytes in two.
    """
    blocks = lax.all_gather(weight, axes)
    rows = blocks.reshape(lax.axis_size("x"), -1, *weight.shape)
    return jnp.concatenate([jnp.concatenate(list(row), axis=f) for row in rows], axis=e)


def _whole_inputs(
    weights: Weights, x: jax.Array, cache: jax.Array, exchanged: tuple[str, ...]
) -> jax.Array:
    """The block where each chip has all of E and a part of heads and F: a part of the sum."""
    query = jnp.einsum("ble,ehq->blhq", x, weights["query"])
    key_value = jnp.einsum("ble,ecq->blcq", x, weights["key_value"])
    attended = _exchange(query, key_value, cache, exchanged)
    hidden = _gated(x @ weights["gate"], x @ weights["up"])
    return jnp.einsum("blhq,hqe->ble", attended, weights["output"]) + hidden @ weights["down"]


def _exchange(
    query: jax.Array, key_value: jax.Array, cache: jax.Array, axes: tuple[str, ...]
) -> jax.Array:
    """Attention over sequences instead of heads, where axes are named: there and back again."""
    if not axes:
        return _attend(query, key_value, cache)
    query = lax.all_to_all(query, axes, split_axis=0, concat_axis=2, tiled=True)
    mine = query.shape[0]
    key_value = lax.dynamic_slice_in_dim(key_value, lax.axis_index(axes) * mine, mine)
    attended = _attend(query, key_value, cache)
    return lax.all_to_all(attended, axes, split_axis=2, concat_axis=0, tiled=True)


def _attend(query: jax.Array, key_value: jax.Array, cache: jax.Array) -> jax.Array:
    """Causal attention of all heads to one head's keys and values."""
    keys, values = (
        jnp.concatenate([cache[:, :, part], key_value[:, :, part]], axis=1) for part in (0, 1)
    )
    tokens, cached = key_value.shape[1], cache.shape[1]
    seen = jnp.arange(cached + tokens) <= cached + jnp.arange(tokens)[:, None]
    scores = jnp.einsum("blhq,bsq->bhls", query, keys) * query.shape[-1] ** -0.5
    shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    return jnp.einsum("bhls,bsq->blhq", shares, values)


def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    return jax.nn.swish(gate) * up


def _scatter(x: jax.Array) -> jax.Array:
    return lax.psum_scatter(x, "x", scatter_dimension=2, tiled=True)


def _gather(x: jax.Array, axes: tuple[str, ...], place: int) -> jax.Array:
    return lax.all_gather(x, axes, axis=place, tiled=True) if axes else x


_COLLECTIVE = re.compile(
    r"= (?P<result>\([^)]*\)|\S+) "
    r"(?P<kind>all-gather|reduce-scatter|all-reduce|all-to-all)(?:-start)?\("
    r".*?replica_groups=(?P<groups>\S+)"
)
_ARRAY = re.compile(r"(?:f32|bf16|s32|pred)\[(?P<shape>[\d,]*)\]")


def collective_elements(text: str, sizes: tuple[int, int, int]) -> Counter[tuple[str, str]]:
    """Elements that each chip holds of the collectives in a compiled program, by kind and axes.

    Counted as in the paper: what an all-gather leaves on a chip, what a reduce-scatter takes from
    it, what an all-to-all or an all-reduce takes and leaves. Those over single chips are left out.

    Args:
        text: of the program.
        sizes: of the mesh's axes.
    """
    found: Counter[tuple[str, str]] = Counter()
    for match in _COLLECTIVE.finditer(text):
        elements = sum(
            int(np.prod([int(size) for size in array["shape"].split(",") if size]))
            for array in _ARRAY.finditer(match["result"])
        )
        kind, groups = match["kind"], _groups(match["groups"])
        if groups.shape[1] > 1:
            taken = elements * (groups.shape[1] if kind == "reduce-scatter" else 1)
            found[kind, _axes(groups, sizes)] += taken
    return found


def _groups(text: str) -> np.ndarray:
    """Chips that a collective joins, a row for each group.

    As `{{0,1},{2,3}}`, or as `[2,2]<=[2,2]T(1,0)`: what counting up gives, transposed, in rows.
    """
    if text.startswith("{"):
        rows = re.findall(r"{([\d,]+)}", text)
        return np.array([[int(chip) for chip in row.split(",")] for row in rows])
    shape, dimensions, order = (
        [int(number) for number in part.split(",") if number]
        for part in re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups("")
    )
    chips = np.arange(np.prod(dimensions)).reshape(dimensions)
    return chips.transpose(order or range(len(dimensions))).reshape(shape)


def _axes(groups: np.ndarray, sizes: tuple[int, int, int]) -> str:
    """The axes along which the chips of a group differ, such as `yz`."""
    places = np.stack(np.unravel_index(groups, sizes))
    return "".join(
        name for name, place in zip("xyz", places, strict=True) if np.ptp(place, 1).any()
    )
