"""Formulas against loops that are walked tile by tile."""

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.planning.attention_demands import attend_demand, logit_demand
from gossamer.planning.attention_mappings import STATIONARITIES
from gossamer.planning.attention_shapes import AttentionShape

Fetch = tuple[str, tuple[int, ...], int]  # a tensor, which part of it, elements


def cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


def steps(
    product: str, stationarity: str, n: int, d: int, t: int, rows: int
) -> Iterator[tuple[int, list[Fetch]]]:
    """The loops of one head, as a nest: cycles of each stationary tile and what streams past it.

    The first tensor of a step is the input that stays in the array, if one does.
    """
    depth, keys = cuts(0, d, t), cuts(0, n, t)
    for low, high in cuts(0, n, rows):
        blocks = cuts(low, high, t)
        if (product, stationarity) == ("L", "output"):
            for (a, b), (k, m) in itertools.product(blocks, keys):
                yield d, [("Q", (a, e), b - a) for e in range(d)]
                yield 0, [("K", (k, e), m - k) for e in range(d)]
        elif (product, stationarity) == ("L", "weight"):
            for (k, m), (e, f) in itertools.product(keys, depth):
                yield max(high - low, t), [("K", (k, e), (m - k) * (f - e))]
                yield 0, [("Q", (row, e), f - e) for row in range(low, high)]
        elif (product, stationarity) == ("L", "input"):
            for (a, b), (e, f) in itertools.product(blocks, depth):
                yield max(n, t), [("Q", (a, e), (b - a) * (f - e))]
                yield 0, [("K", (key, e), f - e) for key in range(n)]
        elif (product, stationarity) == ("A", "output"):
            for (a, b), (e, f) in itertools.product(blocks, depth):
                yield n, [("scores", (a, key), b - a) for key in range(n)]
                yield 0, [("V", (key, e), f - e) for key in range(n)]
        elif (product, stationarity) == ("A", "weight"):
            for (e, f), (k, m) in itertools.product(depth, keys):
                yield max(high - low, t), [("V", (k, e), (m - k) * (f - e))]
                yield 0, [("scores", (row, k), m - k) for row in range(low, high)]
        else:
            for (a, b), (k, m) in itertools.product(blocks, keys):
                yield max(d, t), [("scores", (a, k), (b - a) * (m - k))]
                yield 0, [("V", (k, e), m - k) for e in range(d)]


def walk(*loop) -> tuple[int, dict[str, int]]:
    """Cycles, and elements that come from memory if only the last part of each tensor is held."""
    cycles, held, read = 0, {}, {}
    for spent, fetches in steps(*loop):
        cycles += spent
        for tensor, part, elements in fetches:
            if held.get(tensor) != part:
                held[tensor] = part
                read[tensor] = read.get(tensor, 0) + elements
    return cycles, read


@st.composite
def loops(draw) -> tuple[int, int, int, int]:
    """Sizes such that no stream is of one part, which then would be held by chance."""
    t = draw(st.integers(2, 6))
    n = draw(st.integers(t + 1, 24))
    return n, draw(st.integers(2, 14)), t, draw(st.integers(2, n))


@pytest.mark.parametrize("stationarity", STATIONARITIES)
@settings(deadline=None, max_examples=40)
@given(sizes=loops())
def test_cycles_and_reads_are_those_of_the_walked_loops(stationarity, sizes):
    n, d, t, rows = sizes
    rows = rows - 1 if n % rows == 1 and rows > 2 else rows  # no tile of one row
    if n % rows == 1:
        return
    shape = AttentionShape(batch=2, sequence=n, heads=3, head_dim=d)
    for product, demand in (("L", logit_demand), ("A", attend_demand)):
        cycles, read = walk(product, stationarity, n, d, t, rows)
        found = demand(shape, t, rows, stationarity, (), scores_on_chip=False)
        written = n**2 if product == "L" else n * d
        assert found.memory_bytes == 2 * 6 * (sum(read.values()) + written)
        assert found.array_stretch == pytest.approx(cycles * t**2 / (n**2 * d))
        on_chip = demand(shape, t, rows, stationarity, (), scores_on_chip=True)
        scores = read.get("scores", 0) + (n**2 if product == "L" else 0)
        assert found.memory_bytes - on_chip.memory_bytes == 2 * 6 * scores


LENGTHS = st.sampled_from([512, 1024, 4096, 65536])
KEPT = st.sets(st.sampled_from("QKV"))


def closed_form_bytes(shape: AttentionShape, t: int, rows: int, kept: set[str], p: float) -> float:
    """Of output-stationary mappings with scores on the chip, fused."""
    n, d = shape.sequence, shape.head_dim
    often = {name: 1 if name in kept else n / t for name in "QKV"}
    spilled = p * n**2 * (2 + d / t + (d / t if "V" in kept else 0))
    moved = n * d * (sum(often.values()) + 1) + spilled
    return 2 * shape.batch * shape.heads * moved


@given(n=LENGTHS, d=st.sampled_from([64, 128]), kept=KEPT, p=st.floats(0, 1), power=st.integers(0))
def test_output_stationary_traffic_has_the_closed_form(n, d, kept, p, power):
    t = 256
    rows = min(n, t * 2 ** (power % 3))
    shape = AttentionShape(batch=64, sequence=n, heads=12, head_dim=d)
    logit, attend = (
        demand(shape, t, rows, "output", tuple(kept & set(inputs)), scores_on_chip=True)
        for demand, inputs in ((logit_demand, "QK"), (attend_demand, "V"))
    )
    found = logit.memory_bytes + attend.memory_bytes
    found += p * (logit.spilled_bytes + attend.spilled_bytes)
    assert found == pytest.approx(closed_form_bytes(shape, t, rows, kept, p), rel=1e-12)
    footprint = 2 * (t**2 + 4 * t * d) + sum(
        4 * size * d for name, size in (("Q", rows), ("K", n), ("V", n)) if name in kept
    )
    assert logit.footprint_bytes + attend.footprint_bytes == footprint
    assert logit.array_stretch + attend.array_stretch == pytest.approx(1 + t / d)


@given(
    n=LENGTHS, d=st.sampled_from([64, 128]), t=st.sampled_from([32, 256]), power=st.integers(0, 2)
)
def test_weight_stationary_traffic_has_the_closed_form(n, d, t, power):
    rows = min(n, t * 2**power)
    shape = AttentionShape(batch=64, sequence=n, heads=16, head_dim=d)
    for query in (True, False):
        logit, attend = (
            demand(shape, t, rows, "weight", kept, scores_on_chip=False).memory_bytes
            for demand, kept in ((logit_demand, ("Q",) if query else ()), (attend_demand, ()))
        )
        often = (1 if query else n / t) + 1 + 2 * n / rows
        elements = n * d * often + n**2 * (1 + math.ceil(d / t))
        assert logit + attend == 2 * 64 * 16 * elements


def test_small_row_tiles_leave_the_array_waiting_for_stationary_weights():
    shape = AttentionShape(batch=1, sequence=1024, heads=1, head_dim=64)
    few, many = (
        logit_demand(shape, 32, rows, "weight", (), scores_on_chip=True) for rows in (8, 32)
    )
    assert (few.array_stretch, many.array_stretch) == (4.0, 1.0)
