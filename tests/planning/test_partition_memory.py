import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import Mesh, check_fits, find_chip, find_shape, max_context, memory_use
from gossamer.planning.partition_memory import cache_elements_per_chip
from gossamer.recipe import Recipe

TPU = find_chip("tpu-v4")
CUBE = Mesh.of(4, 4, 4)
PALM = find_shape("palm-540b-padded")
MULTIHEAD = dataclasses.replace(PALM, heads=64, kv_heads=64, head_dim=128)
# Pope et al. 2022, table 1: the longest context at batch 128 and 512.
TABLE_1 = {
    "multihead": (MULTIHEAD, "heads", 1320, 330),
    "multiquery, heads": (PALM, "heads", 660, 165),
    "multiquery, batch": (PALM, "batch", 43000, 10700),
}


@pytest.mark.parametrize(("shape", "attention", "of_128", "of_512"), TABLE_1.values(), ids=TABLE_1)
def test_the_longest_contexts_are_those_of_table_1(shape, attention, of_128, of_512):
    for batch, want in ((128, of_128), (512, of_512)):
        got = max_context(shape, TPU, CUBE, attention, batch=batch, cache_fraction=0.3)
        assert got == pytest.approx(want, rel=0.02)


def test_a_cache_of_int8_is_twice_as_long():
    both = {"batch": 128, "cache_fraction": 0.3}
    longer = max_context(PALM, TPU, CUBE, "batch", cache="int8", **both)
    assert longer in (2 * max_context(PALM, TPU, CUBE, "batch", **both) + extra for extra in (0, 1))


@pytest.mark.parametrize(
    ("name", "each"), [("palm-8b", 32768), ("palm-62b", 65536), ("palm-540b", 120832)]
)
def test_a_token_takes_the_papers_bytes_of_cache(name, each):
    assert 2 * find_shape(name).cache_elements_per_token == each


def test_multihead_palm_would_need_3_terabytes_of_cache():
    shape = dataclasses.replace(find_shape("palm-540b"), kv_heads=48, head_dim=128)
    use = memory_use(shape, Mesh.of(1, 1, 1), "ws-2d", "heads", batch=512, context=2048, tokens=512)
    assert use.cache == pytest.approx(3.04e12, rel=2e-3)


@given(
    batch=st.integers(1, 300),
    kv_heads=st.sampled_from([1, 2, 8, 64]),
    attention=st.sampled_from(["heads", "batch"]),
    layout=st.sampled_from(["ws-1d", "ws-2d", "wg-x", "wg-xy"]),
)
def test_the_fullest_chip_holds_what_dealing_out_sequences_and_heads_gives(
    batch, kv_heads, attention, layout
):
    shape = dataclasses.replace(PALM, kv_heads=kv_heads)
    gathered = {"wg-x": 4, "wg-xy": 16}.get(layout, 1)
    groups = gathered
    while attention == "batch" and groups < 64 and 4 * groups <= batch:
        groups *= 4
    # Every chip's sequences and heads are counted one by one.
    sequences, heads = [0] * groups, [0] * (64 // groups)
    for sequence in range(batch):
        sequences[sequence % groups] += 1
    for head in range(max(kv_heads, len(heads))):  # copies where there are more chips than heads
        heads[head % len(heads)] += 1
    want = 2 * 256 * 100 * max(sequences) * max(heads)
    got = cache_elements_per_chip(shape, CUBE, layout, attention, batch=batch, context=100)
    assert got == want


def test_weights_take_what_a_recipe_stores():
    both = {"batch": 64, "context": 2048, "tokens": 64}
    sizes = {
        weights: memory_use(PALM, CUBE, "ws-2d", "batch", **both, weights=weights).weights
        for weights in ("bf16", "int8", Recipe.load("2:4-int4"))
    }
    bf16, int8, sparse = sizes.values()
    assert bf16 == pytest.approx(2 * 558.2e9 / 64, rel=1e-3)
    assert int8 == pytest.approx(bf16 / 2, rel=1e-2)
    # 3 bits, and 16 for every 64 weights; and the ends in int8.
    assert sparse == pytest.approx(bf16 * 3.25 / 16, rel=2e-2)


@given(
    batch=st.integers(2, 600),
    context=st.integers(100, 100_000),
    attention=st.sampled_from(["heads", "batch"]),
    prefill=st.booleans(),
)
def test_what_would_fit_does_fit(batch, context, attention, prefill):
    def check(batch, context):
        check_fits(
            PALM,
            TPU,
            CUBE,
            "ws-2d",
            attention,
            batch=batch,
            context=context,
            tokens=batch * (context if prefill else 1),
        )

    try:
        check(batch, context)
    except ValueError as error:
        message = str(error)
        if fitting := re.search(r"a batch of (\d+)", message):
            check(int(fitting[1]), context)
        if fitting := re.search(r"a context of (\d+)", message):
            check(batch, int(fitting[1]))


def test_too_little_memory_is_told_by_how_much():
    with pytest.raises(ValueError) as error:
        check_fits(PALM, TPU, CUBE, "ws-2d", "heads", batch=512, context=2048, tokens=512)
    use = memory_use(PALM, CUBE, "ws-2d", "heads", batch=512, context=2048, tokens=512)
    over = (use.nbytes - TPU.memory_bytes) / 2**30
    message = str(error.value)
    assert f"needs {use.nbytes / 2**30:.1f} GiB of each (16.2 GiB of weights, 118.0" in message
    assert f"{over:.1f} GiB more than it has" in message
    assert "Attention divided over the batch, int8 keys and values" in message


def test_weights_that_do_not_fit_are_told_how_many_chips_they_need():
    both = {"batch": 8, "context": 128, "tokens": 8}
    with pytest.raises(ValueError, match=r"weights alone need (\d+) chips") as error:
        check_fits(PALM, TPU, Mesh.of_chips(16), "ws-2d", "batch", **both)
    needed = int(re.search(r"need (\d+) chips", str(error.value))[1])
    assert needed == math.ceil(2 * PALM.parameters / TPU.memory_bytes)


def test_a_model_that_generates_nothing_has_no_cache():
    use = memory_use(
        find_shape("vit-base-16"),
        Mesh.of(1, 1, 1),
        "ws-2d",
        "heads",
        batch=np.array([1, 64]),
        context=197,
        tokens=np.array([197, 64 * 197]),
    )
    assert (np.asarray(use.cache) == 0).all()


def test_a_fraction_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 1\.5"):
        max_context(PALM, TPU, CUBE, "batch", batch=1, cache_fraction=1.5)
