import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.inference import runner as runner_module
from gossamer.inference.runner import Runner, padded_length
from gossamer.models import build
from gossamer.packing import pack
from gossamer.quantization import Int, Quantized
from gossamer.sparsity import NM

TOKENS = np.random.default_rng(5).integers(0, 262, 24).tolist()
FORM = Int(4, group=16)


def packed(kernel):
    kernel = jnp.asarray(kernel)
    pattern = NM(2, 4)
    mask = pattern.mask(jnp.abs(kernel), 0)
    return pack(FORM.encode(jnp.where(mask, kernel, 0)), FORM, pattern, mask)


def compressed(checkpoint, compress):
    """The same model with another type of kernel at its ends and in one of its blocks."""
    paths = (
        "embedding.kernel",
        "layers.1.attention.q_proj.kernel",
        "layers.1.mlp.down_proj.kernel",
    )
    return checkpoint.with_tensors({path: compress(checkpoint.read(path)) for path in paths})


def full_logits(checkpoint, tokens):
    graph, state = nnx.split(build(checkpoint.config, checkpoint.read))
    full_pass = jax.jit(lambda tokens: nnx.merge(graph, state)(tokens))
    return np.asarray(full_pass(jnp.asarray([tokens]))[0])  # [T, V]


def assert_steps_give_the_full_pass(checkpoint, split, atol):
    want = full_logits(checkpoint, TOKENS)
    model = Runner(checkpoint)
    logits, cache = model.prefill(TOKENS[:split], len(TOKENS))
    np.testing.assert_allclose(logits, want[split - 1], atol=atol, rtol=1e-4)
    for index in range(split, len(TOKENS)):
        logits, cache = model.step(jnp.int32(TOKENS[index]), cache)
        np.testing.assert_allclose(logits, want[index], atol=atol, rtol=1e-4, err_msg=f"{index=}")
    assert [int(layer.length) for layer in cache] == [len(TOKENS)] * len(cache)


# On both sides of the padded length 16, one token, and all but one.
@pytest.mark.parametrize("split", [1, 15, 16, 17, 23])
def test_any_prefill_and_steps_give_the_logits_of_one_full_pass(checkpoint, split):
    assert_steps_give_the_full_pass(checkpoint, split, atol=1e-4)


@pytest.mark.parametrize(
    "compress", [packed, lambda w: Quantized(FORM.encode(jnp.asarray(w)), FORM)]
)
def test_compressed_kernels_run_as_they_are(llama, compress):
    # Tile by tile or whole, sums are ordered differently: a few units of the float32 logits.
    assert_steps_give_the_full_pass(compressed(llama, compress), 7, atol=1e-3)


def all_packed(checkpoint, *, but=()):
    """The same model with every kernel of its blocks packed, but for those of some layers."""
    blocks = [path for path in checkpoint.paths if path.startswith("layers.")]
    kernels = [path for path in blocks if path.endswith("kernel")]
    kernels = [path for path in kernels if int(path.split(".")[1]) not in but]
    return checkpoint.with_tensors({path: packed(checkpoint.read(path)) for path in kernels})


@pytest.mark.parametrize("cache", ["float32", "bfloat16", "int8"])
def test_a_stack_of_packed_blocks_gives_the_logits_of_its_blocks_one_by_one(llama, cache):
    model = Runner(all_packed(llama), cache)
    assert len(model._stacks) == 1
    apart = Runner(all_packed(llama), cache)
    (stack, weights), layers = apart._stacks[0], llama.config.num_layers
    alone = runner_module._stack(stack.frame, None)
    apart._stacks = [(alone, [plane[layer] for plane in weights]) for layer in range(layers)]
    apart._frames = runner_module._frames(apart._ends[0], (alone,) * layers)
    apart._weights = [apart._ends[1], *(weights for _, weights in apart._stacks)]
    (got, seen), (want, wanted) = (each.prefill(TOKENS[:9], 24) for each in (model, apart))
    np.testing.assert_allclose(got, want, atol=1e-5)
    for token in TOKENS[9:]:
        got, seen = model.step(jnp.int32(token), seen)
        want, wanted = apart.step(jnp.int32(token), wanted)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_blocks_around_one_of_another_kind_make_stacks_of_their_own(llama):
    last = llama.config.num_layers - 1
    mixed = all_packed(llama, but=(last,))
    layers = [stack.layers for stack, _ in Runner(mixed)._stacks]
    assert layers == [last if last > 1 else None, None]
    assert_steps_give_the_full_pass(mixed, 7, atol=1e-3)


def test_a_prompt_may_fill_all_positions(checkpoint):
    tokens = (TOKENS * 2)[: checkpoint.config.max_positions]
    logits, _ = Runner(checkpoint).prefill(tokens, len(tokens))
    np.testing.assert_allclose(logits, full_logits(checkpoint, tokens)[-1], atol=1e-4, rtol=1e-4)


@pytest.fixture
def compiled(monkeypatch):
    """How often each function was traced, which is how often it was compiled."""
    counts = collections.Counter()
    frame = runner_module.Frame
    original = frame.module

    def module(self, weights, layer=None):
        counts["module"] += 1
        return original(self, weights, layer)

    monkeypatch.setattr(frame, "module", module)
    return counts


def test_prompts_of_similar_length_and_all_blocks_share_compiled_code(checkpoint, compiled):
    model = Runner(checkpoint)
    model.compile(9, 20)
    before = compiled["module"]
    for length in (9, 14, 16):
        logits, cache = model.prefill(TOKENS[:length], 20)
        model.step(jnp.argmax(logits), cache)
    Runner(checkpoint).prefill(TOKENS[:3], 17)  # a model of the same shape too
    assert compiled["module"] == before


def test_blocks_of_different_types_are_all_compiled_beforehand(llama, compiled):
    path = "layers.1.mlp.up_proj.kernel"
    model = Runner(llama.with_tensors({path: packed(llama.read(path))}))
    model.compile(4, 20)
    before = compiled["module"]
    _, cache = model.prefill(TOKENS[:4], 20)
    model.step(jnp.int32(3), cache)
    assert compiled["module"] == before


def test_lengths_are_powers_of_two_within_the_positions():
    lengths = {padded_length(tokens, 100) for tokens in range(1, 101)}
    assert lengths == {16, 32, 64, 100}
    assert all(padded_length(tokens, 100) >= tokens for tokens in range(1, 101))
