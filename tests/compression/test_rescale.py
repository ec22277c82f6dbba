"""Rescaled inputs: a block computes the same; what cannot be rescaled is left alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression.hessian import gram
from gossamer.compression.methods import AWQ, RTN, SmoothQuant
from gossamer.compression.rescale import fold, rescalable, rescaled_gram, sources
from gossamer.models import OptConfig, build_block, model_class, parameter_shapes
from gossamer.quantization import Int
from gossamer.recipe import Rule
from tests.compression.tiny_model import CONFIG, random_weights

MULTI_HEAD = dataclasses.replace(CONFIG, num_kv_heads=4, attention_bias=True, mlp_bias=True)
OPT = OptConfig(
    vocab_size=48, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4, max_positions=64
)
GELU = dataclasses.replace(OPT, activation="gelu")
INT4 = Rule(path="w", weights=Int(4), activations=Int(8))


def shapes_of(config):
    prefix = "layers.0."
    shapes = parameter_shapes(config)
    return {p.removeprefix(prefix): s for p, s in shapes.items() if p.startswith(prefix)}


def found(config, method, without=()):
    shapes = shapes_of(config)
    rules = {p: INT4 for p in shapes if p.endswith("kernel") and p not in without}
    pairs = model_class(config).BLOCK.rescalable(config)
    return rescalable(pairs, method, shapes, rules)


@pytest.mark.parametrize(
    "config", [CONFIG, MULTI_HEAD, OPT, GELU], ids=["grouped", "multi-head", "opt", "gelu"]
)
def test_a_block_whose_inputs_are_rescaled_computes_the_same(config):
    rng = np.random.default_rng(3)
    weights = {
        path: rng.normal(size=weight.shape).astype(np.float32) if path.endswith("bias") else weight
        for path, weight in random_weights(config).items()
    }
    local = {
        p.removeprefix("layers.0."): w for p, w in weights.items() if p.startswith("layers.0.")
    }
    pairs = found(config, AWQ())
    # Neither grouped values nor the inputs of GELU are proportional to what comes out.
    assert len(pairs) == (3 if config in (CONFIG, GELU) else 4)
    changed = {}
    for pair in pairs:
        size = local[f"{pair.projections[0]}.kernel"].shape[0]
        factors = np.exp(rng.normal(size=size)).astype(np.float32)
        changed |= fold(local | changed, pair, factors)
    assert {p for p in changed if not p.endswith("kernel")} <= set(sources(pairs, list(local)))
    x = jnp.asarray(rng.normal(size=(2, 9, 32)), jnp.float32)
    positions = jnp.arange(9)
    outputs = [
        build_block(config, lambda path, w=w: w[path.removeprefix("layers.0.")], 0)(x, positions)[0]
        for w in (local, local | changed)
    ]
    assert any((changed[p] != local[p]).any() for p in changed)
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)  # float32 sums of 64 products


def test_smoothquant_rescales_behind_norms_only_and_rounding_nowhere():
    assert [pair.source for pair in found(MULTI_HEAD, SmoothQuant())] == [
        "attention_norm",
        "mlp_norm",
    ]
    assert found(MULTI_HEAD, RTN()) == []


def test_grouped_values_are_left_alone_as_each_is_read_by_several_heads():
    assert "attention.v_proj" not in [pair.source for pair in found(CONFIG, AWQ())]
    assert "attention.v_proj" in [pair.source for pair in found(MULTI_HEAD, AWQ())]


def test_an_input_with_a_kernel_that_is_not_quantized_is_left_alone():
    sources_found = [p.source for p in found(CONFIG, AWQ(), without=["attention.k_proj.kernel"])]
    assert sources_found == ["mlp_norm", "mlp.up_proj"]


def test_gram_matrix_of_rescaled_inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    factors = np.exp(rng.normal(size=6)).astype(np.float32)
    want = gram(jnp.asarray(x / factors))
    np.testing.assert_allclose(
        rescaled_gram(gram(jnp.asarray(x)), factors), want, rtol=1e-5, atol=1e-5
    )
