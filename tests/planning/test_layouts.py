import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import (
    LAYOUTS,
    Mesh,
    check_divides,
    find_shape,
    gathered_share,
    half_width,
    layer_collectives,
    layout_volume,
    padded_heads,
    with_padded_heads,
)
from gossamer.planning.layouts import batch_chips

PALM = find_shape("palm-540b-padded")
CUBE = Mesh.of(4, 4, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parallel", [True, False])
def test_collectives_add_up_to_the_volumes_in_closed_form(layout, parallel):
    # Without keys' and values' kernels, which closed forms leave out.
    shape = dataclasses.replace(PALM, parallel=parallel)
    tokens = 512 * 64
    found = layer_collectives(
        shape, CUBE, layout, "heads", phase="prefill", batch=512, tokens=tokens
    )
    moved = sum(each.elements for each in found if each.kind != "all-reduce")
    keys = 2 * shape.head_dim * shape.d_model
    weights = sum(map(math.prod, shape.block_kernels("layers").values()))
    if share := gathered_share(shape, CUBE, layout, "prefill"):
        moved += share * weights - keys
    sublayers = 1 if parallel else 2
    sizes = {"d_model": shape.d_model, "width": half_width(shape), "sublayers": sublayers}
    assert moved == pytest.approx(layout_volume(layout, CUBE, tokens=tokens, **sizes))


def test_attention_over_the_batch_is_two_exchanges_of_what_all_heads_hold():
    exchanges = [
        each
        for each in layer_collectives(
            PALM, CUBE, "ws-2d", "batch", phase="decode", batch=512, tokens=512
        )
        if each.kind == "all-to-all" and each.elements
    ]
    assert [each.elements for each in exchanges] == [512 * 64 * 256 / 64] * 2
    assert {each.axes for each in exchanges} == {CUBE.axes}


@given(
    batch=st.integers(64, 2000),
    layout=st.sampled_from(LAYOUTS),
    attention=st.sampled_from(["heads", "batch"]),
)
def test_attention_divides_a_batch_over_as_many_axes_as_it_fills(batch, layout, attention):
    chips = batch_chips(batch, layout, attention, CUBE)
    gathered = {"wg-x": 4, "wg-xy": 16, "wg-xyz": 64}.get(layout, 1)
    if attention == "heads":
        assert chips == gathered
    else:
        assert chips == 64
    small = batch_chips(np.array([1, 3, 4, 15, 16, 63]), "ws-2d", "batch", CUBE)
    assert small.tolist() == [1, 1, 4, 4, 16, 16]


def test_collectives_of_many_batches_are_those_of_each():
    batches = np.array([1, 4, 10, 64, 512])
    together = layer_collectives(
        PALM, CUBE, "ws-2d", "batch", phase="decode", batch=batches, tokens=batches
    )
    for index, batch in enumerate(batches.tolist()):
        alone = layer_collectives(
            PALM, CUBE, "ws-2d", "batch", phase="decode", batch=batch, tokens=batch
        )
        assert [each.axes for each in alone] == [each.axes for each in together]
        got = [np.broadcast_to(each.elements, batches.shape)[index] for each in together]
        assert got == [each.elements for each in alone]


def test_a_serial_block_gathers_the_stream_twice_and_cross_attention_once_more():
    def streams(shape, phase):
        found = layer_collectives(shape, CUBE, "ws-1d", "heads", phase=phase, batch=64, tokens=64)
        return sum(each.kind == "all-gather" for each in found)

    assert streams(PALM, "decode") == 1
    assert streams(find_shape("llama-2-70b"), "decode") == 2
    assert streams(find_shape("t5-11b"), "decode") == 3
    assert streams(find_shape("t5-11b"), "prefill") == 2
    assert streams(find_shape("conformer-l"), "prefill") == 4


@pytest.mark.parametrize(
    ("change", "layout", "message"),
    [
        ({"d_model": 100}, "ws-2d", "d_model over 64 chips, and 100 of palm-540b-padded"),
        ({"d_ff": 1000}, "ws-1d", "d_ff over 64 chips, and 1000"),
        ({"heads": 24}, "ws-2d", "heads over 16 chips, and 24 .* pad them to 32, or take"),
        ({"heads": 63}, "wg-x", "heads over 16 chips, and 63 .* pad them to 64, or take"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_a_way_out(change, layout, message):
    with pytest.raises(ValueError, match=message):
        check_divides(dataclasses.replace(PALM, **change), CUBE, layout, "heads", 64)


def test_batches_below_what_gathering_divides_are_refused():
    check_divides(PALM, CUBE, "wg-xy", "batch", 16)
    with pytest.raises(ValueError, match="sequences over 64 chips, and a batch of 32 is less; use"):
        check_divides(PALM, CUBE, "wg-xyz", "batch", np.array([32, 64]))


@given(heads=st.integers(1, 40), kv_heads=st.integers(1, 8), side=st.sampled_from([1, 2, 3, 4, 6]))
def test_padding_gives_the_least_heads_that_divide(heads, kv_heads, side):
    shape = dataclasses.replace(PALM, heads=heads * kv_heads, kv_heads=kv_heads)
    mesh = Mesh.of(1, side, side)
    padded = padded_heads(shape, mesh, "ws-2d")
    multihead = kv_heads == shape.heads
    assert padded == next(
        count
        for count in range(shape.heads, shape.heads + 10**4)
        if count % side**2 == 0 and (multihead or count % kv_heads == 0)
    )
    assert with_padded_heads(shape, mesh, "ws-2d").heads == padded
