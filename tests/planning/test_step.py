import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import LlamaConfig
from gossamer.planning import (
    CALIBRATED,
    IDEAL,
    Mesh,
    find_chip,
    find_shape,
    model_flops_utilization,
    shape_of,
    step_cost,
    step_costs,
)
from gossamer.recipe import Recipe

TPU, A100 = find_chip("tpu-v4"), find_chip("a100-80gb")
PALM, PALM_62B, MT_NLG = map(find_shape, ("palm-540b", "palm-62b", "mt-nlg-530b"))
PADDED = find_shape("palm-540b-padded")
CUBE = Mesh.of(4, 4, 4)
DECODE = {"layout": "ws-2d", "attention": "batch", "phase": "decode", "context": 2048}

# Pope et al. 2022, tables 2 and 3: chips, tokens, seconds, half their last digit, MFU in percent.
TABLES_2_AND_3 = [
    (PALM, 64, 2048, 0.29, 0.005, 43),
    (PALM, 64, 64 * 64, 1.82, 0.005, 14),
    (PALM, 64, 512 * 2048, 85.2, 0.05, 76),
    (PALM, 64, 512 * 64, 6.0, 0.05, 33),
    (PALM_62B, 16, 2048, 0.16, 0.005, 36),
    (PALM_62B, 16, 32 * 64, 0.73, 0.005, 8),
    (PALM_62B, 32, 512 * 2048, 20.2, 0.05, 73),
    (PALM_62B, 8, 512 * 64, 5.1, 0.05, 37),
]
# Tables D.2 and D.3, milliseconds / MFU in percent by batch. Columns: FasterTransformer's MT-NLG on
# 16, 32 and 24 A100; prefill, generation and both of PaLM 540B, and both of MT-NLG, on 64 TPU v4.
TABLE_D2 = """
1: 565/1 431/1 842/0 - - - -
2: 598/2 455/1 860/1 - - - -
4: 616/4 493/2 867/2 34/14 255/1 289/2 289/2
8: 660/7 523/5 929/3 40/25 226/2 265/5 304/4
16: 730/13 575/8 1049/6 58/34 234/3 292/9 339/8
32: 865/22 672/14 1283/10 99/40 235/7 334/16 420/13
64: 1191/32 942/20 1722/15 186/42 265/12 451/24 532/20
128: 1862/41 1431/27 2124/24 356/44 312/20 668/33 740/29
256: 3341/46 2483/31 3140/32 668/47 415/30 1083/41 1151/38
512: - - - 1366/46 671/37 2037/43 2151/40
1024: - - - 2785/45 1257/40 4041/44 4082/42
"""
TABLE_D3 = """
1: 1379/1 1037/1 2085/1 - - - -
2: 1515/2 1110/2 2122/1 - - - -
4: 1512/4 1198/3 2184/2 50/29 640/1 690/3 678/3
8: 1631/8 1295/5 2367/4 80/37 574/2 653/6 728/5
16: 1868/15 1454/9 2753/7 153/39 602/3 755/10 838/9
32: 2361/23 1804/15 3543/10 270/44 626/6 896/18 1058/15
64: 3383/32 2646/21 4117/18 501/47 717/11 1218/26 1275/24
128: 5406/40 4099/27 5319/27 985/48 829/19 1814/35 1902/32
256: - 7203/30 8318/35 2041/46 1114/28 3155/40 3189/39
512: - - - 4167/45 1743/36 5910/43 6210/40
1024: - - - 8349/45 3260/39 11608/43 12390/40
"""
TPU_PALM, TPU_MT_NLG = (PALM, TPU, 64), (MT_NLG, TPU, 64)
COLUMNS = [(MT_NLG, A100, 16), (MT_NLG, A100, 32), (MT_NLG, A100, 24)] + [TPU_PALM] * 3
COLUMNS.append(TPU_MT_NLG)


def cells(table, inputs, outputs):
    """Every cell: shape, chip, chips, tokens, seconds, percent."""
    counted = [inputs + outputs] * 3 + [inputs, outputs] + [inputs + outputs] * 2
    for line in table.strip().splitlines():
        batch, values = line.split(": ")
        for value, (shape, chip, chips), tokens in zip(
            values.split(), COLUMNS, counted, strict=True
        ):
            if value != "-":
                milliseconds, percent = map(int, value.split("/"))
                yield shape, chip, chips, int(batch) * tokens, milliseconds / 1e3, percent


@pytest.mark.parametrize(
    ("shape", "chips", "tokens", "seconds", "half_digit", "percent"), TABLES_2_AND_3
)
def test_mfu_is_that_of_tables_2_and_3(shape, chips, tokens, seconds, half_digit, percent):
    # Seconds that print as they do give percents that print as they do.
    least, most = (
        100 * model_flops_utilization(shape, TPU, chips, tokens=tokens, seconds=seconds + change)
        for change in (half_digit, -half_digit)
    )
    assert least <= percent + 0.5
    assert most >= percent - 0.5


@pytest.mark.parametrize(
    ("table", "inputs", "outputs", "count"),
    [(TABLE_D2, 20, 8, 27 + 36), (TABLE_D3, 60, 20, 26 + 36)],
)
def test_mfu_is_that_of_every_cell_of_appendix_d(table, inputs, outputs, count):
    found = list(cells(table, inputs, outputs))
    assert len(found) == count
    for shape, chip, chips, tokens, seconds, percent in found:
        mfu = model_flops_utilization(shape, chip, chips, tokens=tokens, seconds=seconds)
        assert 100 * mfu == pytest.approx(percent, abs=0.75)


@pytest.mark.parametrize("chips", [64, 128, 256])
def test_2d_beats_1d_in_decoding_at_batch_512(chips):
    one, two = (
        step_cost(
            PALM,
            TPU,
            Mesh.of_chips(chips),
            **{**DECODE, "layout": layout},
            batch=512,
            pad_heads=True,
        )
        for layout in ("ws-1d", "ws-2d")
    )
    assert two.seconds < one.seconds


@pytest.mark.parametrize(("tokens", "winner"), [(131072, "ws-2d"), (262144, "wg-xyz")])
def test_prefill_switches_to_gathered_weights_where_it_was_measured_to(tokens, winner):
    both = {"attention": "batch", "phase": "prefill", "context": 2048, "batch": tokens // 2048}
    seconds = {
        layout: step_cost(PADDED, TPU, CUBE, layout=layout, **both).seconds
        for layout in ("ws-2d", "wg-xyz")
    }
    assert min(seconds, key=seconds.get) == winner


def test_int8_already_gathers_at_one_sequence_a_chip():
    both = {"phase": "prefill", "context": 2048, "batch": 64, "weights": "int8"}
    stationary = step_cost(PADDED, TPU, CUBE, layout="ws-2d", attention="heads", **both)
    gathered = step_cost(PADDED, TPU, CUBE, layout="wg-xyz", attention="batch", **both)
    assert gathered.seconds < stationary.seconds


@pytest.mark.parametrize("batch", [64, 128, 256, 512])
def test_decoding_divides_attention_over_the_batch(batch):
    by_batch, by_heads = (
        step_costs(PADDED, TPU, CUBE, **{**DECODE, "attention": attention}, batch=np.array([batch]))
        for attention in ("batch", "heads")
    )
    assert by_batch.seconds < by_heads.seconds


def test_prefill_of_one_sequence_gains_nothing_by_dividing_the_batch():
    both = {"layout": "ws-2d", "phase": "prefill", "context": 2048, "batch": 1}
    by_heads, by_batch = (
        step_cost(PADDED, TPU, CUBE, attention=attention, **both)
        for attention in ("heads", "batch")
    )
    assert by_heads.seconds == by_batch.seconds


def test_int8_helps_small_batches_and_not_large_ones():
    gains = {
        batch: step_cost(PADDED, TPU, CUBE, **DECODE, batch=batch).seconds
        / step_cost(PADDED, TPU, CUBE, **DECODE, batch=batch, weights="int8").seconds
        for batch in (64, 128, 512)
    }
    # Measured: 1.30, 1.24 and 0.98.
    assert gains[64] > 1.2
    assert gains[128] > 1.05
    assert gains[512] < 1.02


def test_a_turn_of_a_chat_takes_what_the_paper_says():
    # 64 new tokens behind 1920, then 64 steps of a batch of 64: 1.9 s.
    prompt = step_cost(
        PADDED,
        TPU,
        CUBE,
        layout="ws-2d",
        attention="heads",
        phase="prefill",
        batch=1,
        context=1984,
        tokens=64,
        weights="int8",
    )
    step = step_cost(PADDED, TPU, CUBE, **{**DECODE, "context": 2016}, batch=64, weights="int8")
    assert prompt.seconds + 64 * step.seconds == pytest.approx(1.9, rel=0.05)
    assert prompt.tokens == 64


def test_serial_blocks_are_slower_to_decode():
    parallel = step_cost(PADDED, TPU, CUBE, **DECODE, batch=512)
    serial = step_cost(dataclasses.replace(PADDED, parallel=False), TPU, CUBE, **DECODE, batch=512)
    # The paper measures 14 %; this model gives more.
    assert 1.1 < serial.seconds / parallel.seconds < 1.25


def test_figures_of_a_step_belong_together():
    cost = step_cost(PADDED, TPU, CUBE, **DECODE, batch=512)
    without = step_cost(PADDED, TPU, CUBE, **DECODE, batch=512, ends=False)
    assert without.seconds == pytest.approx(118 * cost.seconds_per_layer)
    # 256,000 scores of 512 tokens.
    scores = 2 * 18432 * 256000 * 512 / (64 * 275e12 * CALIBRATED.matmul_efficiency)
    assert cost.seconds - without.seconds == pytest.approx(scores)
    assert cost.chip_ms_per_token == pytest.approx(64e3 * cost.seconds / 512)
    assert cost.mfu == pytest.approx(2 * 540e9 / (275e12 * cost.chip_ms_per_token / 1e3))
    assert cost.seconds < (
        cost.compute_seconds + cost.memory_seconds + cost.communication_seconds + cost.fixed_seconds
    )
    parts = ("compute_seconds", "memory_seconds", "communication_seconds", "fixed_seconds")
    assert max(getattr(cost, part) for part in parts) < cost.seconds
    assert {type(getattr(cost, field.name)) for field in dataclasses.fields(cost)} == {int, float}


@settings(deadline=None, max_examples=25)
@given(
    batches=st.lists(st.integers(64, 400), min_size=1, max_size=5),
    layout=st.sampled_from(["ws-1d", "ws-2d", "wg-x", "wg-xyz"]),
    attention=st.sampled_from(["heads", "batch"]),
    phase=st.sampled_from(["prefill", "decode"]),
)
def test_costs_of_many_batches_are_those_of_each(batches, layout, attention, phase):
    both = {
        "layout": layout,
        "attention": attention,
        "phase": phase,
        "context": 32,
        "weights": "int8",
        "cache": "int8",
    }
    together = step_costs(PADDED, TPU, CUBE, batch=np.array(batches), **both)
    for index, batch in enumerate(batches):
        alone = step_cost(PADDED, TPU, CUBE, batch=batch, **both)
        for field in dataclasses.fields(alone):
            values = np.broadcast_to(getattr(together, field.name), (len(batches),))
            assert getattr(alone, field.name) == pytest.approx(values[index], rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(64, 512),
    layout=st.sampled_from(["ws-1d", "ws-2d", "wg-x", "wg-xyz"]),
    phase=st.sampled_from(["prefill", "decode"]),
    field=st.sampled_from(["bf16_flops", "memory_bandwidth", "link_bandwidth"]),
)
def test_a_better_chip_or_narrower_weights_never_take_longer(batch, layout, phase, field):
    both = {
        "layout": layout,
        "attention": "batch",
        "phase": phase,
        "batch": batch,
        "context": 512,
    }
    before = step_cost(PADDED, TPU, CUBE, **both)
    better = dataclasses.replace(TPU, **{field: 1.5 * getattr(TPU, field)})
    assert step_cost(PADDED, better, CUBE, **both).seconds <= before.seconds
    assert step_cost(PADDED, TPU, CUBE, **both, weights="int8").seconds <= before.seconds
    assert step_cost(PADDED, TPU, CUBE, **both, cache="int8").seconds <= before.seconds
    assert step_cost(PADDED, TPU, CUBE, **both, constants=IDEAL).seconds < before.seconds


def test_recipes_are_planned_with_the_bytes_that_they_store():
    steps = {
        name: step_cost(PADDED, TPU, CUBE, **DECODE, batch=64, weights=Recipe.load(name))
        for name in ("int8", "int4", "2:4-int4", "1:4-int4")
    }
    bytes_each = [cost.memory_bytes_per_chip for cost in steps.values()]
    assert bytes_each == sorted(bytes_each, reverse=True)
    seconds = [cost.seconds for cost in steps.values()]
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("name", ["t5-11b", "flan-t5-xxl", "llama-2-70b", "opt-66b"])
def test_other_models_run_in_both_phases(name):
    both = {"layout": "ws-2d", "attention": "batch", "batch": 8, "context": 512}
    prefill, decode = (
        step_cost(find_shape(name), TPU, Mesh.of(2, 2, 2), phase=phase, **both)
        for phase in ("prefill", "decode")
    )
    assert 0 < decode.seconds < prefill.seconds
    assert prefill.tokens == 512 * decode.tokens


def test_models_of_images_and_speech_run_in_one_pass_and_generate_nothing():
    both = {"layout": "ws-2d", "attention": "batch", "batch": 64, "context": 197}
    for name in ("vit-large-16", "conformer-l"):
        shape = find_shape(name)
        assert step_cost(shape, TPU, Mesh.of(1, 2, 2), phase="prefill", **both).mfu < 1
        with pytest.raises(ValueError, match=f"{name} generates no tokens"):
            step_cost(shape, TPU, Mesh.of(1, 2, 2), phase="decode", **both)


def test_a_model_of_ours_runs_on_one_core():
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        max_positions=16,
    )
    cost = step_cost(
        shape_of(config),
        find_chip("cpu"),
        Mesh.of(1, 1, 1),
        layout="ws-1d",
        attention="heads",
        phase="decode",
        batch=1,
        context=16,
        constants=IDEAL,
    )
    assert cost.communication_seconds == 0
    # Read once: blocks, the output, and a cache.
    read = 2 * (2 * (4 * 32 * 32 + 3 * 32 * 64) + 32 * 64) + 2 * 2 * 2 * 32 * 16
    assert cost.memory_seconds == pytest.approx(read / find_chip("cpu").memory_bandwidth)


def test_chips_behind_switches_use_all_their_links():
    mesh = Mesh.of(1, 8, 1)
    cost = step_cost(
        find_shape("llama-2-70b"),
        A100,
        mesh,
        layout="ws-1d",
        attention="heads",
        phase="prefill",
        batch=4,
        context=1024,
        constants=IDEAL,
    )
    moved = 80 * 2 * 2 * 4096 * 8192 * 2 * 7 / 8
    assert cost.communication_seconds == pytest.approx(moved / (12 * 25e9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch of a step needs 1 or more, got 0"),
        ({"context": -5}, "context of a step needs 1 or more, got -5"),
        ({"tokens": 0}, "tokens of a step needs 1 or more, got 0"),
        ({"tokens": 4096}, "4096 new tokens are more than the whole context of 2048"),
        ({"layout": "ws-1d"}, "48 of palm-540b are no multiple; pad them to 64"),
        ({"context": 10**7}, r"GiB more than it has. What would fit: a context of \d+"),
    ],
)
def test_bad_steps_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        step_cost(PALM, TPU, CUBE, **{**DECODE, "batch": 64, **change})


@pytest.mark.parametrize(
    ("chip", "mesh", "message"),
    [
        ("cpu", (1, 2, 1), "No links of cpu are known, so that one chip is all there can be"),
        ("h100-sxm", (4, 4, 1), "Links join at most 8 h100-sxm, and 16 are more"),
    ],
)
def test_chips_that_are_not_linked_are_refused(chip, mesh, message):
    with pytest.raises(ValueError, match=message):
        step_cost(find_shape("palm-8b"), find_chip(chip), Mesh.of(*mesh), **DECODE, batch=16)


def test_heads_are_padded_where_that_is_asked_for():
    cost = step_cost(PALM, TPU, CUBE, **{**DECODE, "layout": "ws-1d"}, batch=64, pad_heads=True)
    assert cost.heads == 64
    assert step_cost(PALM, TPU, CUBE, **DECODE, batch=64, pad_heads=True).heads == 48
