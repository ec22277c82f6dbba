"""What every family must hold, on golden models: parity, caching, causality, compressed kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.models import Decoder, build
from gossamer.nn import attention
from gossamer.packing import Packed, pack
from gossamer.quantization import Int, Quantized
from gossamer.sparsity import NM

# float32 sums of 32 to 64 products of numbers near 1, in another order: errors near 1e-6.
ATOL = 1e-5


@functools.partial(jax.jit, static_argnums=0)
def run(graph, state, tokens, cache=None):
    return nnx.merge(graph, state)(tokens, cache)


def check_decode_matches_full(model: Decoder, tokens: jax.Array) -> None:
    """Any prefill length followed by single steps gives the logits of one full pass."""
    graph, state = nnx.split(model)
    batch, length = tokens.shape
    # Splits are compiled one by one: `length` is small.
    want = run(graph, state, tokens)
    for split in range(1, length + 1):
        cache = model.empty_cache(batch, length + 3)
        logits, cache = run(graph, state, tokens[:, :split], cache)
        np.testing.assert_allclose(logits, want[:, :split], atol=ATOL, err_msg=f"{split=}")
        for t in range(split, length):
            logits, cache = run(graph, state, tokens[:, t : t + 1], cache)
            np.testing.assert_allclose(
                logits[:, 0], want[:, t], atol=ATOL, err_msg=f"{split=} {t=}"
            )


def test_logits_equal_those_of_transformers(golden):
    logits = run(*nnx.split(golden.model()), jnp.asarray(golden.tokens))
    np.testing.assert_allclose(logits, golden.logits, atol=ATOL, rtol=0)


def test_decode_after_any_prefill_equals_the_full_pass(family):
    check_decode_matches_full(family.model(), jnp.asarray(family.tokens[:, :5]))


def test_a_prompt_in_several_parts_equals_the_full_pass(family, monkeypatch):
    monkeypatch.setattr(attention, "QUERY_CHUNK", 3)  # parts and chunks that do not line up
    model, tokens = family.model(), jnp.asarray(family.tokens)
    cache, parts = model.empty_cache(2, 12), []
    for part in jnp.split(tokens, [3, 8], axis=1):
        logits, cache = run(*nnx.split(model), part, cache)
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), family.logits, atol=ATOL, rtol=0)


def test_cached_tokens_survive_a_longer_cache(family):
    model, tokens = family.model(), jnp.asarray(family.tokens)
    graph, state = nnx.split(model)
    _, cache = run(graph, state, tokens[:, :7], model.empty_cache(2, 7))
    logits, _ = run(graph, state, tokens[:, 7:], [layer.resized(20) for layer in cache])
    np.testing.assert_allclose(logits, family.logits[:, 7:], atol=ATOL, rtol=0)


def test_no_token_influences_the_logits_before_it(golden):
    model = golden.model()
    positions = jnp.arange(golden.tokens.shape[1])
    hidden = model.embed(jnp.asarray(golden.tokens), positions)

    def logits(x):
        for block in model.layers:
            x, _ = block(x, positions)
        return model.logits(x).sum(axis=(0, 2))

    # Row t holds how the logits at t change with the hidden state of each token. A leak of any
    # size shows as a number that is not exactly 0, and a token that is not used as a 0.
    gradients = jax.jit(jax.jacrev(logits))(hidden)
    influence = jnp.abs(gradients).max(axis=(1, 3))  # [t, s]
    np.testing.assert_array_equal(influence > 0, np.tri(len(positions), dtype=bool))


def test_sequences_of_a_batch_do_not_mix(family):
    model = family.model()
    alone = run(*nnx.split(model), jnp.asarray(family.tokens[1:]))
    np.testing.assert_allclose(alone[0], family.logits[1], atol=ATOL, rtol=0)


def quantize(kernel: jax.Array) -> Quantized:
    fmt = Int(8, group=8)
    return Quantized(fmt.encode(kernel), fmt)


def prune_and_pack(kernel: jax.Array) -> Packed:
    mask = NM(2, 4).mask(jnp.abs(kernel), axis=0)
    return pack(Int(4, group=8).encode(kernel * mask), Int(4, group=8), NM(2, 4), mask)


@pytest.mark.parametrize("compress", [quantize, prune_and_pack])
def test_compressed_kernels_give_the_logits_of_the_values_they_stand_for(family, compress):
    kernels = {
        path: compress(jnp.asarray(weight))
        for path, weight in family.weights.items()
        if path.endswith(".kernel")
    }
    plain = {path: kernel.materialize() for path, kernel in kernels.items()}
    compressed = build(family.config, {**family.weights, **kernels}.__getitem__)
    decoded = build(family.config, {**family.weights, **plain}.__getitem__)
    tokens = jnp.asarray(family.tokens)
    want = run(*nnx.split(decoded), tokens)
    np.testing.assert_allclose(run(*nnx.split(compressed), tokens), want, atol=ATOL, rtol=0)
    assert np.abs(want - family.logits).max() > 1e-3  # rounding shows: it is not the dense model
    check_decode_matches_full(compressed, tokens[:, :2])


def test_a_text_longer_than_the_positions_is_refused(family):
    with pytest.raises(ValueError, match="32 positions, got 33 tokens; cut the text"):
        family.model()(jnp.zeros((1, 33), jnp.int32))


def test_a_fused_block_gives_what_its_projections_give(family):
    model = family.model()
    x = jax.random.normal(jax.random.key(0), (1, 5, model.config.hidden_size))
    block = model.layers[0]
    want, _ = block(x, jnp.arange(5))
    block.fuse()
    assert block.attention.qkv_proj is not None
    got, _ = block(x, jnp.arange(5))
    np.testing.assert_allclose(got, want, atol=ATOL)
