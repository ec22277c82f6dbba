"""The best of many ways to serve a model: slices, layouts, batches and numerics."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from gossamer.planning.batches import one_of
from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, StepConstants
from gossamer.planning.layouts import (
    ATTENTION_LAYOUTS,
    LAYOUTS,
    AttentionLayout,
    Layout,
    check_divides,
    gathered_axes,
)
from gossamer.planning.meshes import Mesh, chips_along
from gossamer.planning.names import check_known
from gossamer.planning.pareto import pareto
from gossamer.planning.partition_memory import CACHE_BYTES, CacheFormat
from gossamer.planning.shapes import ModelShape, Phase
from gossamer.planning.slices import all_slices
from gossamer.planning.step import StepCost, step_costs, with_padded_heads
from gossamer.planning.stored_weights import Weights, store_weights

BATCHES = tuple(sorted({2**power for power in range(11)} | {3 * 2**power for power in range(9)}))
"""1 to 1024 sequences, two steps a doubling."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServePlan:
    """One way to run a phase, and what it costs."""

    mesh: Mesh
    layout: Layout
    attention: AttentionLayout
    batch: int
    weights: str
    cache: CacheFormat
    cost: StepCost


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSearch:
    """What a search found.

    Attributes:
        front: plans that none beats both in seconds and in chip-milliseconds a token, the fastest
            first.
        smallest: the plan with the fewest chips; of several, that with the fewest chip-milliseconds
            a token.
        considered: how many plans were looked at.
        left_out: how many were not possible, by reason.
    """

    front: tuple[ServePlan, ...]
    smallest: ServePlan
    considered: int
    left_out: Mapping[str, int]


def search_serving(
    shape: ModelShape,
    chip: Chip,
    *,
    phase: Phase,
    context: int,
    meshes: Sequence[Mesh],
    tokens: int | None = None,
    batches: Sequence[int] = BATCHES,
    weights: Sequence[Weights] = ("bf16",),
    caches: Sequence[CacheFormat] = ("bf16",),
    layouts: Sequence[Layout] = LAYOUTS,
    max_seconds: float | None = None,
    constants: StepConstants = CALIBRATED,
    pad_heads: bool = True,
) -> ServeSearch:
    """Finds the plans on the front of latency against chip-milliseconds a token.

    Args:
        shape: of the model.
        chip: of which the meshes are made.
        phase: `prefill` of a prompt, or one step of `decode`.
        context: tokens of each sequence behind the pass.
        meshes: such as `meshes_of` lists.
        tokens: new ones of each sequence; see `step_cost`.
        batches: sequences.
        weights: bits or recipes.
        caches: formats of keys and values.
        layouts: of the feed-forward layer and the projections.
        max_seconds: of the pass; None: any.
        constants: losses.
        pad_heads: whether heads are padded where a layout cannot divide them.

    Raises:
        ValueError: nothing to choose from, or nothing fits or is fast enough: it says how near the
            best was.

    Example:
        >>> from gossamer.planning import find_chip, find_shape
        >>> found = search_serving(find_shape("palm-540b"), find_chip("tpu-v4"), phase="decode",
        ...                        context=2048, meshes=[Mesh.of(4, 4, 4)], max_seconds=0.05,
        ...                        batches=(64, 128), weights=("bf16", "int8"))
        >>> for plan in found.front:
        ...     print(plan.weights, plan.layout, plan.attention, plan.batch,
        ...           f"{1e3 * plan.cost.seconds:.0f} ms")
        int8 ws-2d batch 64 29 ms
        int8 ws-2d batch 128 35 ms
    """
    _check(context, meshes, batches, weights, caches, layouts, max_seconds)
    chip.check_linked(max(mesh.chips for mesh in meshes))
    sizes, meshes = np.unique(np.array(batches)), tuple(dict.fromkeys(meshes))
    groups: list[_Group] = []
    for mesh, layout, attention in itertools.product(meshes, layouts, ATTENTION_LAYOUTS):
        padded = with_padded_heads(shape, mesh, layout) if pad_heads else shape
        usable = _dividing(padded, mesh, layout, attention, sizes)
        for numerics, cache in itertools.product(weights, caches) if usable.size else ():
            cost = step_costs(
                padded,
                chip,
                mesh,
                layout=layout,
                attention=attention,
                phase=phase,
                batch=usable,
                context=context,
                tokens=tokens,
                weights=numerics,
                cache=cache,
                constants=constants,
            )
            name = store_weights(padded, numerics).name
            groups.append(_Group(mesh, layout, attention, usable, name, cache, cost))
    choices = (meshes, layouts, ATTENTION_LAYOUTS, sizes, weights, caches)
    considered = math.prod(map(len, choices))
    return _front(shape, chip, groups, considered, max_seconds)


def meshes_of(chip: Chip, max_chips: int) -> tuple[Mesh, ...]:
    """The meshes that a chip's links make, each with any of its axes as x.

    In three dimensions the slices of a machine of TPU v4; else boxes whose sides are powers of two.

    Args:
        chip: whose network it is.
        max_chips: of the largest.

    Raises:
        ValueError: no chips.

    Example:
        >>> from gossamer.planning import find_chip
        >>> print(*meshes_of(find_chip("tpu-v4"), 16))
        1x1x1 1x1x2 2x1x1 1x2x2 2x1x2 2x2x2 2x2x4 4x2x2
    """
    if max_chips < 1:
        raise ValueError(f"A mesh needs 1 chip or more, got at most {max_chips}.")
    max_chips = min(max_chips, chip.linked_chips or max_chips) if chip.links else 1
    if chip.torus_axes != 3:
        sides = [2**power for power in range(max_chips.bit_length())]
        return tuple(Mesh.of(x, y, 1) for x in sides for y in sides if x * y <= max_chips)
    boxes = [each.sizes for each in all_slices(max_chips) if not each.twisted]
    found = (
        Mesh.of(sizes[first], *sizes[:first], *sizes[first + 1 :])
        for sizes in boxes
        for first in range(3)
    )
    return tuple(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class _Group:
    """Plans that differ in their batch alone."""

    mesh: Mesh
    layout: Layout
    attention: AttentionLayout
    batches: np.ndarray
    weights: str
    cache: CacheFormat
    costs: StepCost

    def field(self, name: str) -> np.ndarray:
        return np.broadcast_to(getattr(self.costs, name), self.batches.shape)

    def plan(self, index: int) -> ServePlan:
        return ServePlan(
            mesh=self.mesh,
            layout=self.layout,
            attention=self.attention,
            batch=int(self.batches[index]),
            weights=self.weights,
            cache=self.cache,
            cost=one_of(self.costs, index),
        )


def _dividing(
    shape: ModelShape, mesh: Mesh, layout: Layout, attention: AttentionLayout, sizes: np.ndarray
) -> np.ndarray:
    """The batches that a layout can divide over a mesh."""
    usable = sizes[sizes >= chips_along(gathered_axes(layout, mesh))]
    if usable.size:
        try:
            check_divides(shape, mesh, layout, attention, usable)
        except ValueError:
            return usable[:0]
    return usable


def _front(
    shape: ModelShape,
    chip: Chip,
    groups: Sequence[_Group],
    considered: int,
    max_seconds: float | None,
) -> ServeSearch:
    if not groups:
        raise ValueError(
            f"No layout divides {shape.name} over any of the meshes and batches; take other meshes "
            "or larger batches, or pad heads."
        )
    seconds, cost, memory = (
        np.concatenate([group.field(name) for group in groups])
        for name in ("seconds", "chip_ms_per_token", "memory_bytes_per_chip")
    )
    fits = memory <= chip.memory_bytes
    if not fits.any():
        raise ValueError(
            f"{shape.name} fits on none of the meshes: the least it needs of each {chip.name} is "
            f"{memory.min() / 2**30:.1f} GiB, {(memory.min() - chip.memory_bytes) / 2**30:.1f} GiB "
            "more than it has; give more chips, a shorter context or narrower weights."
        )
    limit = math.inf if max_seconds is None else max_seconds
    quick = seconds <= limit
    if not (fits & quick).any():
        raise ValueError(
            f"No plan for {shape.name} takes at most {1e3 * limit:g} ms: the fastest that "
            f"fits takes {1e3 * seconds[fits].min():.3g} ms; give more chips or narrower weights."
        )
    left_out = {
        "does not divide": considered - fits.size,
        "does not fit": int((~fits).sum()),
        "too slow": int((fits & ~quick).sum()),
    }
    plans = [(group, index) for group in groups for index in range(group.batches.size)]
    possible = np.flatnonzero(fits & quick)
    chips = np.repeat([group.mesh.chips for group in groups], [len(g.batches) for g in groups])
    smallest, index = plans[possible[np.lexsort((cost[possible], chips[possible]))[0]]]
    chosen = (plans[place] for place in pareto(seconds, cost, possible))
    return ServeSearch(
        front=tuple(group.plan(index) for group, index in chosen),
        smallest=smallest.plan(index),
        considered=considered,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _check(
    context: int,
    meshes: Sequence[Mesh],
    batches: Sequence[int],
    weights: Sequence[Weights],
    caches: Sequence[CacheFormat],
    layouts: Sequence[Layout],
    max_seconds: float | None,
) -> None:
    choices = {
        "meshes": meshes,
        "batches": batches,
        "weights": weights,
        "caches": caches,
        "layouts": layouts,
    }
    if empty := [name for name, values in choices.items() if not values]:
        raise ValueError(f"A search needs something to choose from, and {empty} are empty.")
    if context < 1 or min(batches) < 1:
        raise ValueError(
            f"A search needs a context and batches of 1 or more, got {context} and {list(batches)}."
        )
    for cache in caches:
        check_known("format of the cache", cache, CACHE_BYTES)
    for layout in layouts:
        check_known("layout", layout, LAYOUTS)
    if max_seconds is not None and max_seconds <= 0:
        raise ValueError(f"max_seconds needs to be above 0, got {max_seconds}.")
