import functools

import jax
import jax.numpy as jnp
import pytest

from gossamer.models import LlamaConfig
from gossamer.packing import account, pack, pack_floats, why_dense
from gossamer.planning import (
    builtin_chips,
    find_chip,
    find_shape,
    kernel_bytes,
    shape_of,
    store_weights,
)
from gossamer.quantization import Int
from gossamer.recipe import PRESETS, Recipe, Rule
from gossamer.sparsity import NM

CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=64,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=1,
    head_dim=16,
    max_positions=16,
    tied=False,
)


@functools.cache
def packed_bytes(kernel, rule):
    """What a kernel takes once it is packed."""
    values = jax.random.normal(jax.random.key(0), kernel)
    pattern = None if rule is None else rule.pattern
    if pattern is not None:
        values = jnp.where(pattern.mask(jnp.abs(values), axis=0), values, 0)
    if rule is not None and rule.weights is not None:
        sparse = pattern if isinstance(pattern, NM) else None
        return account(pack(rule.weights.encode(values), rule.weights, sparse)).nbytes
    halves = values.astype(jnp.bfloat16)
    if isinstance(pattern, NM) and why_dense(pattern, None) is None:
        return account(pack_floats(halves, pattern)).nbytes
    return account(halves).nbytes


@pytest.mark.parametrize("preset", ["2:4-int4", "int8", "2:4", "50%"])
def test_bytes_are_those_of_the_packed_model(preset):
    recipe = PRESETS[preset]
    shape = shape_of(CONFIG)
    rules = recipe.match(shape.kernels)
    want = {path: packed_bytes(each, rules.get(path)) for path, each in shape.kernels.items()}
    stored = store_weights(shape, recipe)
    assert stored.nbytes == sum(want.values())
    assert stored.block_bytes == {
        "layers": sum(size for path, size in want.items() if path.startswith("layers."))
    }
    assert stored.output_bytes == want["output.kernel"]


@pytest.mark.parametrize(("kernel", "rule"), [((32, 20), "2:4"), ((64, 7), "1:4-int4")])
def test_lanes_that_are_left_over_are_counted(kernel, rule):
    rule = PRESETS[rule].rules[0]
    assert kernel_bytes(kernel, rule) == packed_bytes(kernel, rule)


@pytest.mark.parametrize(("bits", "each"), [("bf16", 2), ("int8", 1), ("int4", 0.5)])
def test_bits_count_blocks_as_papers_do_and_leave_the_ends_in_bf16(bits, each):
    palm = find_shape("palm-62b")
    stored = store_weights(palm, bits)
    ends = 8192 * 256000
    assert stored.end_bytes == stored.output_bytes == 2 * ends
    assert stored.nbytes == each * (palm.parameters - ends) + 2 * ends


def test_both_stacks_of_an_encoder_decoder_are_counted():
    t5 = find_shape("flan-t5-small")
    stored = store_weights(t5, "bf16")
    assert set(stored.block_bytes) == {"encoder.layers", "decoder.layers"}
    assert stored.nbytes == 2 * t5.parameters


def test_products_are_faster_only_where_weights_and_chip_allow():
    palm = find_shape("palm-8b")
    a100, tpu = find_chip("a100-80gb"), find_chip("tpu-v4")
    times = {
        name: (store_weights(palm, recipe).relative_compute(a100), recipe)
        for name, recipe in PRESETS.items()
        if name in ("int4", "w8a8", "2:4-int4", "1:4-int4")
    }
    assert {name: time for name, (time, _) in times.items()} == {
        "int4": 1,  # only its weights are integers
        "w8a8": 0.5,
        "2:4-int4": 0.5,
        "1:4-int4": 0.5,  # at most two of four are kept: units for 2:4 take them
    }
    assert {store_weights(palm, recipe).relative_compute(tpu) for _, recipe in times.values()} == {
        1
    }
    both = Recipe.of(r".*layers\..*", pattern=NM(2, 4), weights=Int(8), activations=Int(8))
    assert store_weights(palm, both).relative_compute(a100) == pytest.approx(0.25)
    assert all(
        store_weights(palm, "bf16").relative_compute(chip) == 1 for chip in builtin_chips().values()
    )


def test_what_cannot_be_stored_is_refused_by_its_path():
    recipe = Recipe(rules=(Rule(path=r"layers\..*", weights=Int(4, group=64)),))
    with pytest.raises(ValueError, match=r"layers\.0\.\S+ \(144, \d+\): .*64"):
        store_weights(find_shape("conformer-s"), recipe)
    with pytest.raises(ValueError, match="match no weight"):
        store_weights(find_shape("palm-8b"), Recipe.of("blocks.*", pattern=NM(2, 4)))


@pytest.mark.parametrize(
    ("pattern", "is_2_4_too"),
    [
        (NM(2, 4), True),
        (NM(1, 4), True),
        (NM(1, 2), True),
        (NM(2, 8), True),
        (NM(4, 8), False),
        (NM(3, 4), False),
    ],
    ids=str,
)
def test_sparse_units_multiply_what_is_2_4_or_sparser(pattern, is_2_4_too):
    shape = find_shape("palm-8b")
    recipe = Recipe.of(r"layers\..*\.kernel", pattern=pattern)
    time = store_weights(shape, recipe).relative_compute(find_chip("h100-sxm"))
    assert time == pytest.approx(0.5 if is_2_4_too else 1.0)
