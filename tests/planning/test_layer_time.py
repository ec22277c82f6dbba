import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.planning import (
    CALIBRATED,
    IDEAL,
    IDEAL_FLAT,
    Mesh,
    StepConstants,
    find_chip,
    find_shape,
    store_weights,
)
from gossamer.planning.layer_time import LayerPass

TPU = find_chip("tpu-v4")
PALM = find_shape("palm-540b-padded")
E, F, HQ, Q = 18432, 73728, 64 * 256, 256
LINK, HBM, PEAK = 45e9, 1.2e12, 275e12


def ring_gather_seconds(sizes, gathered_bytes, *, efficiency):
    """One axis after the other, the last one first: step by step round each ring, both ways."""
    held, seconds = gathered_bytes / np.prod(sizes), 0.0
    for size in reversed(sizes):
        bandwidth = efficiency * LINK * (2 if size % 4 == 0 else 1)
        for _ in range(size - 1):
            seconds += held / bandwidth
        held *= size
    assert held == pytest.approx(gathered_bytes)
    return seconds


def hops(sizes):
    return sum(size / 2 if size % 4 == 0 else size - 1 for size in sizes)


def decode_by_hand(sizes, batch, context, weight_bytes, constants):
    """A step of WS-2D with attention over the batch, PaLM's block, written out."""
    x, y, z = sizes
    chips, e = x * y * z, constants.link_efficiency
    gather = lambda over, elements: ring_gather_seconds(over, 2 * elements, efficiency=e)  # noqa: E731
    seconds = constants.fixed_seconds
    moved = [
        ([y, z], batch * E / x),  # the stream is gathered
        ([x], batch * (2 * F + HQ) / (y * z)),  # sums of gates, inputs and queries are scattered
        ([x], batch * 2 * Q),  # keys and values: scattered
        ([x], batch * 2 * Q),  # and gathered
        ([x], batch * (F + HQ) / (y * z)),  # hidden values and mixtures are gathered
        ([y, z], batch * E / x),  # sums are scattered back
    ]
    for over, elements in moved:
        seconds += gather(over, elements) + constants.hop_seconds * hops(over)
    groups = 1
    over = []
    for size in (z, y, x):
        if groups * size <= batch:
            groups *= size
            over.append(size)
        else:
            break
    for _ in range(2):  # queries there, mixtures back
        held = 2 * batch * HQ / chips
        ways = {size: LINK * (2 if size % 4 == 0 else 1) for size in over}
        slowest = max((size / (4 * way) for size, way in ways.items()), default=0)
        seconds += held * slowest / e + constants.hop_seconds * hops(over)
    weights = E * (3 * F + 2 * HQ + 2 * Q)
    peak = chips * PEAK * constants.matmul_efficiency
    seconds += max(2 * weights * batch / peak, weight_bytes * weights / chips / HBM)
    seconds += 2 * 2 * Q * context * -(-batch // groups) / HBM
    return seconds + 4 * batch * context * HQ / peak


def of_planner(layout, attention, phase, mesh, batch, context, weights, constants):
    return LayerPass(
        shape=PALM,
        chip=TPU,
        mesh=mesh,
        layout=layout,
        attention=attention,
        phase=phase,
        batch=batch,
        context=context,
        tokens=1 if phase == "decode" else context,
        stored=store_weights(PALM, weights),
        cache_bytes=2,
        constants=constants,
    ).time()


@pytest.mark.parametrize("constants", [CALIBRATED, StepConstants(network="axis-by-axis")])
@settings(deadline=None, max_examples=50)
@given(
    sizes=st.tuples(*[st.sampled_from([2, 4, 8])] * 3),
    batch=st.integers(1, 1024),
    context=st.integers(1, 3000),
    weights=st.sampled_from([("bf16", 2), ("int8", 1), ("int4", 0.5)]),
)
def test_a_step_of_decoding_is_what_hand_written_sums_give(
    constants, sizes, batch, context, weights
):
    mesh = Mesh.of(*sizes)
    got = of_planner("ws-2d", "batch", "decode", mesh, batch, context, weights[0], constants)
    want = decode_by_hand(sizes, batch, context, weights[1], constants)
    assert float(got.seconds) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("batch", [128, 256, 512])
def test_weight_gathered_prefill_is_what_hand_written_sums_give(batch):
    k = CALIBRATED
    got = of_planner("wg-xyz", "batch", "prefill", Mesh.of(4, 4, 4), batch, 2048, "bf16", k)
    weights = E * (3 * F + 2 * HQ + 2 * Q)
    scores = batch * 2048 * 2048 * 64 / 64
    peak = 64 * PEAK * k.matmul_efficiency
    gathering = 2 * weights / (LINK * k.link_efficiency) * 63 / 64
    want = k.fixed_seconds + max(2 * weights * batch * 2048 / peak, gathering)
    want += 4 * scores * 64 * 256 / peak
    cache = 2 * 2 * Q * 2048 * batch / 64
    spilled = k.score_traffic * scores
    assert float(got.seconds) == pytest.approx(want + (cache + spilled) / HBM, rel=1e-9)


def test_flat_bandwidth_is_the_papers_formula():
    tokens = 4096
    got = of_planner("ws-2d", "heads", "prefill", Mesh.of(4, 4, 4), 2, 2048, "bf16", IDEAL_FLAT)
    wide, stream = (3 * F + 2 * HQ) / 16 * 3 / 4, 2 * E / 4 * 15 / 16
    keys = 2 * 2 * Q * 3 / 4
    want = 2 * tokens * (stream + wide + keys) / 270e9
    assert float(got.communication_seconds) == pytest.approx(want, rel=1e-9)


def test_one_axis_alone_is_a_third_of_the_flat_bandwidth_and_two_are_two_thirds():
    sizes = {
        "1d": ("ws-1d", 1),  # all three axes
        "x": ("wg-xy", 3),  # z alone gathers activations
        "two": ("wg-x", 1.5),
    }
    for layout, factor in sizes.values():
        each = {
            constants.name: LayerPass(
                shape=PALM,
                chip=TPU,
                mesh=Mesh.of(4, 4, 4),
                layout=layout,
                attention="heads",
                phase="prefill",
                batch=512,
                context=2048,
                tokens=2048,
                stored=dataclasses.replace(store_weights(PALM, "bf16"), block_bytes={"layers": 0}),
                cache_bytes=2,
                constants=constants,
            )
            .time()
            .communication_seconds
            for constants in (IDEAL, IDEAL_FLAT)
        }
        ideal, flat = (float(seconds) for seconds in each.values())
        assert ideal / flat == pytest.approx(factor)


@settings(deadline=None, max_examples=40)
@given(
    layout=st.sampled_from(["ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz"]),
    attention=st.sampled_from(["heads", "batch"]),
    phase=st.sampled_from(["prefill", "decode"]),
    batch=st.integers(64, 1024),
    context=st.integers(1, 4096),
)
def test_no_network_is_faster_than_the_one_above_it(layout, attention, phase, batch, context):
    cases = [
        IDEAL_FLAT,
        IDEAL,
        StepConstants(network="axis-by-axis"),
        dataclasses.replace(CALIBRATED, gather_links=None),
        CALIBRATED,
    ]
    times = [
        float(
            of_planner(
                layout, attention, phase, Mesh.of(4, 4, 4), batch, context, "int8", each
            ).seconds
        )
        for each in cases
    ]
    assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(times[1:]))
    # The quarter in an all-to-all's rule for axes may beat the flat one.
    assert times[0] <= times[1] * (1 + 1e-12) or attention == "batch"


def test_a_chip_alone_does_not_communicate_and_needs_no_links():
    palm = find_shape("palm-8b")
    alone = LayerPass(
        shape=palm,
        chip=find_chip("cpu"),
        mesh=Mesh.of(1, 1, 1),
        layout="ws-2d",
        attention="batch",
        phase="decode",
        batch=4,
        context=128,
        tokens=1,
        stored=store_weights(palm, "int4"),
        cache_bytes=2,
        constants=CALIBRATED,
    ).time()
    assert float(alone.communication_seconds) == 0
    assert float(alone.fixed_seconds) == CALIBRATED.fixed_seconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed_seconds": -1.0}, "fixed_seconds needs 0 or more, got -1"),
        ({"matmul_efficiency": 1.2}, "matmul_efficiency needs to be above 0 and at most 1"),
        ({"link_efficiency": 0.0}, "link_efficiency needs to be above 0 and at most 1"),
        ({"gather_links": 0.0}, "gather_links needs to be above 0, got 0"),
    ],
)
def test_impossible_constants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        StepConstants(**change)
