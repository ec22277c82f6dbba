import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.models import (
    Llama,
    LlamaConfig,
    Opt,
    OptConfig,
    ViT,
    ViTConfig,
    build,
    build_block,
    build_ends,
    config_from_hf,
    hf_key,
    model_class,
    parameter_shapes,
)
from gossamer.nn.linear import CompressedParam
from gossamer.quantization import Int, Quantized


def quantize(weight: np.ndarray) -> Quantized:
    return Quantized(Int(8).encode(jnp.asarray(weight)), Int(8))


def test_parameter_shapes_are_those_of_a_fresh_model(any_family):
    model = model_class(any_family.config)(any_family.config, nnx.Rngs(0))
    state = nnx.to_flat_state(nnx.state(model))
    fresh = {".".join(map(str, path)): variable.get_value().shape for path, variable in state}
    assert parameter_shapes(any_family.config) == fresh


def test_a_built_model_is_structured_as_a_fresh_one(any_family):
    fresh = model_class(any_family.config)(any_family.config, nnx.Rngs(0))
    assert nnx.split(any_family.model())[0] == nnx.split(fresh)[0]


def test_blocks_and_ends_one_at_a_time_give_the_whole_model(any_family):
    read = any_family.weights.__getitem__
    ends = build_ends(any_family.config, read)
    assert len(ends.layers) == 0
    x = ends.begin(jnp.asarray(any_family.inputs))
    for index in range(any_family.config.num_layers):
        x = build_block(any_family.config, read, index).through(x)
    np.testing.assert_allclose(ends.logits(x), any_family.logits, atol=1e-5)


def test_only_the_weights_asked_for_are_read(any_family):
    asked = []

    def read(path):
        asked.append(path)
        return any_family.weights[path]

    build_block(any_family.config, read, 1)
    assert asked
    assert all(path.startswith("layers.1.") for path in asked)
    asked.clear()
    build_ends(any_family.config, read)
    assert asked
    assert not any(path.startswith("layers.") for path in asked)


@pytest.mark.parametrize("kind", ["plain", "quantized"])
def test_one_compilation_serves_all_blocks_of_a_model(any_family, kind):
    def read(path):
        weight = any_family.weights[path]
        return quantize(weight) if kind == "quantized" and path.endswith(".kernel") else weight

    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def apply(graph, state, x):
        traces.append(graph)
        return nnx.merge(graph, state).through(x)

    blocks = [build_block(any_family.config, read, index) for index in range(2)]
    blocks += list(build(any_family.config, read).layers)
    splits = [nnx.split(block) for block in blocks]
    assert len({graph for graph, _ in splits}) == 1
    x = jnp.ones((1, 4, 32))
    outs = [apply(graph, state, x) for graph, state in splits]
    assert len(traces) == 1
    np.testing.assert_array_equal(outs[0], outs[2])  # the same block, built alone and in the model
    assert np.abs(outs[0] - outs[1]).max() > 1e-3  # different blocks


def test_compressed_weights_are_variables_of_their_own_type(any_family):
    block = build_block(
        any_family.config,
        lambda path: (
            quantize(any_family.weights[path])
            if "q_proj.kernel" in path
            else any_family.weights[path]
        ),
        0,
    )
    assert type(block.attention.q_proj.kernel) is CompressedParam
    assert type(block.attention.k_proj.kernel) is nnx.Param
    assert type(block.attention_norm.scale) is nnx.Param


def test_weights_of_another_shape_are_refused_by_path(any_family):
    wrong = {**any_family.weights, "layers.1.mlp_norm.scale": np.ones(31, np.float32)}
    message = r"layers\.1\.mlp_norm\.scale needs the shape \(32,\), got \(31,\)"
    with pytest.raises(ValueError, match=message):
        build(any_family.config, wrong.__getitem__)


def test_weights_that_are_not_float32_are_refused_by_path(any_family):
    wrong = {**any_family.weights, "norm.scale": np.ones(32, np.float16)}
    with pytest.raises(ValueError, match=r"norm\.scale must be float32, got float16"):
        build_ends(any_family.config, wrong.__getitem__)


def test_an_aligned_weight_is_not_copied(family):
    spare = np.empty(32 * 64 + 16, np.float32)
    offset = -spare.ctypes.data % 64 // 4
    aligned = spare[offset : offset + 32 * 64].reshape(32, 64)
    ends = build_ends(family.config, {**family.weights, "embedding.kernel": aligned}.__getitem__)
    assert ends.embedding.kernel.get_value().unsafe_buffer_pointer() == aligned.ctypes.data


def test_the_family_follows_from_the_config(any_family):
    classes = {LlamaConfig: Llama, OptConfig: Opt, ViTConfig: ViT}
    assert model_class(any_family.config) is classes[type(any_family.config)]
    assert config_from_hf(any_family.config.to_hf()) == any_family.config


def test_an_unknown_family_is_refused():
    with pytest.raises(
        ValueError, match=r"model_type 'mamba'; supported: \['llama', 'opt', 't5', 'vit'"
    ):
        config_from_hf({"model_type": "mamba"})


def test_every_parameter_has_its_own_hugging_face_name(golden):
    shapes = parameter_shapes(golden.config)
    names = {hf_key(golden.config, path) for path in shapes}
    assert len(names) == len(shapes)
    assert "lm_head.weight" in names or golden.config.tied


@pytest.mark.parametrize("path", ["layers.0.mlp.kernel", "norm.table2", "layers.mlp_norm.scale"])
def test_a_path_that_is_no_parameter_has_no_name(any_family, path):
    with pytest.raises(ValueError, match=re.escape(f"{path!r} is no parameter of this family")):
        hf_key(any_family.config, path)
